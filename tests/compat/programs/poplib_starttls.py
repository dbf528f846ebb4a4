import poplib
import sys

M = poplib.POP3("localhost", int(sys.argv[1]))
M.stls()
M.user("me")
M.pass_("secret")
print(M.stat())
M.quit()
