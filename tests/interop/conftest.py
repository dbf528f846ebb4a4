"""Other people's programs, in both roles: what is here needs a kernel with TLS, as tests/kernel."""

from tests.kernel.conftest import capabilities, cleaned, either, running, ssad

__all__ = ["capabilities", "cleaned", "either", "running", "ssad"]
