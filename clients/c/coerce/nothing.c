/* nothing.c: a library without anything in it. */

typedef int nothing; /* a file of C has to declare something */
