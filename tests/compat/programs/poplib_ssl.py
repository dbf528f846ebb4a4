import poplib
import sys

M = poplib.POP3_SSL("localhost", int(sys.argv[1]))
M.user("me")
M.pass_("secret")
print(M.stat())
M.quit()
