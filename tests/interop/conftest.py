"""Other people's programs, in both roles: what is here needs a kernel with TLS, as tests/kernel."""

from tests.kernel.conftest import capabilities, cleaned, running, ssad

__all__ = ["capabilities", "cleaned", "running", "ssad"]
