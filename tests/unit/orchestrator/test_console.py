import io

from orchestrator.console import Console


def test_each_line_bears_its_processs_name() -> None:
    output = io.StringIO()
    console = Console(output, color=False)
    console.line("web", "hello")
    console.line("connector", "there")
    console.text("ready")
    assert output.getvalue() == "web       | hello\nconnector | there\n\nready\n"


def test_a_process_keeps_its_colour() -> None:
    output = io.StringIO()
    console = Console(output, color=True)
    for name in ("web", "worker", "web"):
        console.line(name, "x")
    first, second, third = output.getvalue().splitlines()
    assert first == third == "\x1b[36mweb       |\x1b[0m x"
    assert second == "\x1b[33mworker    |\x1b[0m x"


def test_a_terminal_that_is_gone_is_no_error() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Console(Gone(), color=False).line("web", "hello")
