"""`python -m headscope` is `headscope`: it answers signals before it imports what takes time."""

from headscope.signals import end_at_signals


def main() -> None:
    """Run the command line."""
    end_at_signals()
    from headscope.cli import main as run

    run()


if __name__ == "__main__":
    main()
