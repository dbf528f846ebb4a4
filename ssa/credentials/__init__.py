"""Credentials of servers: certificates with their keys, paired, chosen by name, renewed while in use."""

from ssa.credentials.credential import Credential, pair_untrusted
from ssa.credentials.folder import Folder
from ssa.credentials.pem import parse_chain_untrusted, parse_key_untrusted
from ssa.credentials.selection import choose, matches
from ssa.credentials.store import CredentialStore

__all__ = [
    "Credential",
    "CredentialStore",
    "Folder",
    "choose",
    "matches",
    "pair_untrusted",
    "parse_chain_untrusted",
    "parse_key_untrusted",
]
