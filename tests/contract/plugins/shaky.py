"""Write the loss of each step to a file. The first three attempts fail; the file is closed however the run ends."""

from tunesmith import Plugin, hookimpl

plugin = Plugin(best_effort=True)


class Log:
    def __init__(self, run):
        self.file = (run.output_dir / "shaky.txt").open("w")
        self.failures = 3

    def write(self, record):
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the server restarts")
        self.file.write(f"{record.step} {record.metrics['loss']:.4f}\n")

    def close(self):
        self.file.write("closed\n")
        self.file.close()


@hookimpl
def write_log(run, record):
    run.owned(Log).write(record)
