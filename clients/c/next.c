/* next.c: the functions behind ours. */

#include "internal.h"

#include <dlfcn.h>

struct next next_functions;

#define LOOK_UP(type, name, arguments) *(void **)&next_functions.name = dlsym(RTLD_NEXT, #name);

void next_look_up(void) {
    NEXT_FUNCTIONS(LOOK_UP)
}
