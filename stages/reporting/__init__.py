"""What the report says, in parts: tables, curves, the page, its Markdown form."""
