"""The policy: its settings (`schema`), the one in force (`live`), its file (`files`), and requests (`resolve`)."""
