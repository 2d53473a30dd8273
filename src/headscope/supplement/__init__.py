"""What a paper needs beside the page: figures, tables, methods, checklists, a model card."""
