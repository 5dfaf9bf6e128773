"""Who may reach the server and what they may do there: TLS, tokens, quotas and limits per address.

`protection.py` puts the parts together; docs/security.md has the threat model.
"""
