//! The supervisor's own output: the lines of all processes that have nowhere else to write, each
//! with the name of its process.

use super::lines::{Line, append_shown};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// Where lines are written.
pub struct ConsoleOptions {
    /// What is written to.
    pub writer: Pin<Box<dyn AsyncWrite + Send>>,
    /// It is a terminal: nothing it would act on is let through.
    pub terminal: bool,
    /// Names have colours, and processes may set colours.
    pub colours: bool,
}

impl ConsoleOptions {
    /// Standard output.
    #[must_use]
    pub fn stdout() -> ConsoleOptions {
        use std::io::IsTerminal;
        let terminal = std::io::stdout().is_terminal();
        // The agreement of no-color.org.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let writer = Box::pin(tokio::io::stdout());
        ConsoleOptions { writer, terminal, colours: terminal && !unwanted }
    }
}

/// Takes lines in order. When it is not written as fast as lines come, whoever brings them waits:
/// nothing is lost and nothing is piled up.
pub struct Console {
    sender: mpsc::Sender<Item>,
    terminal: bool,
    colours: bool,
    /// The longest name so far, so that the texts stand below each other.
    width: AtomicUsize,
    names: AtomicUsize,
}

enum Item {
    Lines(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// What stands before each line of one process.
#[derive(Clone, Debug)]
pub struct Prefix {
    name: String,
    colour: u8,
}

impl Console {
    /// Begins to write.
    #[must_use]
    pub fn new(options: ConsoleOptions) -> Console {
        const WAITING: usize = 8;
        let (sender, mut items) = mpsc::channel(WAITING);
        let mut writer = options.writer;
        tokio::spawn(async move {
            while let Some(item) = items.recv().await {
                match item {
                    // A terminal that is gone must not hold up anybody.
                    Item::Lines(bytes) => drop(writer.write_all(&bytes).await),
                    Item::Flush(done) => {
                        let _ = writer.flush().await;
                        let _ = done.send(());
                        continue;
                    }
                }
                if items.is_empty() {
                    let _ = writer.flush().await;
                }
            }
        });
        Console {
            sender,
            terminal: options.terminal,
            colours: options.colours,
            width: AtomicUsize::new(0),
            names: AtomicUsize::new(0),
        }
    }

    /// A prefix for the process `name`.
    #[must_use]
    pub fn prefix(&self, name: String) -> Prefix {
        /// Those of the sixteen that can be read on dark and on light.
        const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];
        self.width.fetch_max(name.len(), Ordering::Relaxed);
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        Prefix { name, colour: COLOURS[number % COLOURS.len()] }
    }

    /// Appends a line to `out` as it is to be written.
    pub fn append(&self, out: &mut Vec<u8>, prefix: &Prefix, line: Line<'_>) {
        let width = self.width.load(Ordering::Relaxed);
        let name = &prefix.name;
        let text = match self.colours {
            true => format!("\x1b[{}m{name:width$} |\x1b[0m ", prefix.colour),
            false => format!("{name:width$} | "),
        };
        out.extend_from_slice(text.as_bytes());
        if self.terminal {
            append_shown(out, line, self.colours);
        } else {
            out.extend_from_slice(line.bytes);
            if line.cut {
                append_shown(out, Line { bytes: b"", cut: true }, false);
            }
        }
        out.push(b'\n');
    }

    /// Hands in what [`Console::append`] made; waits where too much is waiting already.
    pub async fn write(&self, lines: Vec<u8>) {
        // It is only closed when everything ends.
        let _ = self.sender.send(Item::Lines(lines)).await;
    }

    /// Returns when all that was handed in before is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.sender.send(Item::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}
