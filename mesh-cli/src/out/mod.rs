//! The only place that writes: answers to stdout, everything else to stderr.

pub(crate) mod table;
pub(crate) mod units;

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::{Format, Output};

/// Writes answers in the form that was asked for.
#[derive(Debug)]
pub(crate) struct Out {
    format: Format,
    quiet: bool,
    verbose: bool,
    /// Stdout is a terminal.
    terminal: bool,
    /// Stderr is a terminal.
    hints: bool,
    color: bool,
    color_stderr: bool,
    /// True when lines of a table that is shown again replace the earlier ones.
    shown: bool,
}

/// How a text is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Not well.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

impl Tone {
    /// The ANSI sequence that switches it on (ECMA-48 SGR).
    fn sgr(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
        }
    }
}

impl Out {
    /// Looks at the flags, at whether stdout and stderr are terminals, and at `NO_COLOR` (no-color.org) and `TERM`.
    pub(crate) fn new(flags: &Output) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colorful = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (terminal, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            format: flags.format,
            quiet: flags.quiet,
            verbose: flags.verbose,
            terminal,
            hints: stderr && terminal,
            color: colorful && terminal,
            color_stderr: colorful && stderr,
            shown: false,
        }
    }

    /// True when the answer is for people.
    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// True when YAML was asked for.
    pub(crate) fn is_yaml(&self) -> bool {
        self.format == Format::Yaml
    }

    /// True when stdout is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns of the terminal; None when stdout is none, so that nothing is left out for want of room.
    pub(crate) fn width(&self) -> Option<usize> {
        if !self.terminal {
            return None;
        }
        terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0)
    }

    /// True when stdout takes colour.
    pub(crate) fn is_colored(&self) -> bool {
        self.color
    }

    /// Colours a text, when stdout takes colour.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.color, tone, text)
    }

    /// Writes one line (or several) of the answer to stdout.
    ///
    /// # Errors
    /// When stdout cannot be written, a broken pipe among it.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()
    }

    /// Writes a table to stdout.
    ///
    /// # Errors
    /// As for [`Out::line`].
    pub(crate) fn table(&self, table: &table::Table) -> io::Result<()> {
        self.line(&self.render(table))
    }

    /// A table as it would be written.
    pub(crate) fn render(&self, table: &table::Table) -> String {
        table.render(self.width(), self.color)
    }

    /// Writes a whole answer as JSON or YAML, by the form that was asked for.
    ///
    /// # Errors
    /// As for [`Out::line`].
    pub(crate) fn document<T: Serialize>(&self, answer: &T) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Yaml => serde_saphyr::to_string(answer).context("cannot write the answer as YAML")?,
            Format::Json | Format::Table => serde_json::to_string_pretty(answer)?,
        };
        Ok(self.line(&text)?)
    }

    /// Writes one of several answers in a row: JSON one per line, YAML documents.
    ///
    /// # Errors
    /// As for [`Out::line`].
    pub(crate) fn document_in_series<T: Serialize>(&self, answer: &T) -> anyhow::Result<()> {
        if self.format == Format::Yaml {
            self.line("---")?;
            return self.document(answer);
        }
        Ok(self.line(&serde_json::to_string(answer)?)?)
    }

    /// Writes text that replaces what an earlier call wrote (on a terminal), or follows it after an empty line.
    ///
    /// # Errors
    /// As for [`Out::line`].
    pub(crate) fn screen(&mut self, text: &str) -> io::Result<()> {
        let again = std::mem::replace(&mut self.shown, true);
        if self.terminal {
            // Home, then clear each line as it is written and the rest below: no flicker.
            let body = text.trim_end().replace('\n', "\x1b[K\n");
            let clear = if again { "" } else { "\x1b[2J" };
            return self.line(&format!("{clear}\x1b[H{body}\x1b[K\n\x1b[J"));
        }
        self.line(&if again { format!("\n{text}") } else { text.to_owned() })
    }

    /// Says something that is not part of the answer, on stderr; silent with `-q`.
    pub(crate) fn remark(&self, text: &str) {
        if !self.quiet {
            complain(text);
        }
    }

    /// Says that an answer is not all that was asked for, on stderr; also with `-q`.
    pub(crate) fn warning(&self, text: &str) {
        complain(&format!("{} {}", paint(self.color_stderr, Tone::Warn, "warning:"), table::plain(text)));
    }

    /// Says something on stderr with `-v` only.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            complain(&paint(self.color_stderr, Tone::Dim, text));
        }
    }

    /// Says what to try next, on stderr: only to people at a terminal, and not with `-q` or `-o`.
    pub(crate) fn hint(&self, text: &str) {
        if self.hints && !self.quiet && self.is_table() {
            complain(&paint(self.color_stderr, Tone::Dim, &format!("\nTry: {text}")));
        }
    }

    /// Says on stderr, in several lines, that what was asked for did not come about.
    pub(crate) fn failure(&self, text: &str) {
        let lines: Vec<String> = text.lines().map(table::plain).collect();
        complain(&format!("{} {}", paint(self.color_stderr, Tone::Bad, "error:"), lines.join("\n")));
    }

    /// Says what went wrong, on stderr: the error, its causes, and last the remedy if there is one.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let mut causes: Vec<String> = Vec::new();
        for cause in error.chain().map(|cause| table::plain(&cause.to_string())) {
            // Many libraries repeat their cause's text in their own.
            if !causes.last().is_some_and(|last| last.contains(&cause)) {
                causes.push(cause);
            }
        }
        complain(&format!("{} {}", paint(self.color_stderr, Tone::Bad, "error:"), causes.join(": ")));
    }
}

fn paint(color: bool, tone: Tone, text: &str) -> String {
    if color && tone != Tone::Plain { format!("{}{text}\x1b[0m", tone.sgr()) } else { text.to_owned() }
}

/// Nobody can be told when stderr is gone, so that failures are ignored.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
