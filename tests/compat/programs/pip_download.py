import runpy
import sys

index = f"https://localhost:{sys.argv[1]}/simple/"
sys.argv = ["pip", "--isolated", "--retries=0", "--disable-pip-version-check", "download", "--no-deps", "-v"]
sys.argv += ["--no-cache-dir", "--dest", "packages", "--index-url", index, "nothing"]
runpy.run_module("pip", run_name="__main__")
