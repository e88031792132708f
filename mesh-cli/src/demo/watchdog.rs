//! Ends what the demo started when meshctl itself is killed and cannot do it any more.
//!
//! It is a process of its own that reads from a pipe what runs. The pipe ends when meshctl does, whatever ended it.

use std::{
    collections::BTreeSet,
    io::{self, BufRead},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// How long processes may take to end by themselves.
const GRACE: Duration = Duration::from_secs(3);

/// One line of the pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A process was started.
    Started(u32),
    /// A process ended.
    Ended(u32),
    /// A directory that is to be removed at the end.
    Directory(PathBuf),
}

impl Note {
    /// The line, with its end.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Started(pid) => format!("+{pid}\n"),
            Self::Ended(pid) => format!("-{pid}\n"),
            Self::Directory(path) => format!("={}\n", path.display()),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_at_checked(1)?;
        match kind {
            "+" => rest.parse().ok().map(Self::Started),
            "-" => rest.parse().ok().map(Self::Ended),
            "=" => Some(Self::Directory(rest.into())),
            _ => None,
        }
    }
}

/// Reads notes until the pipe ends, then ends what still runs.
pub(crate) fn run(notes: impl BufRead) {
    let (running, directory) = read(notes);
    let running: Vec<Pid> =
        running.into_iter().filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw)).collect();
    for signal in [Signal::TERM, Signal::KILL] {
        for &pid in &running {
            // It may have ended meanwhile.
            let _gone = kill_process(pid, signal);
        }
        let steps = GRACE.as_millis() / 50;
        for _ in 0..steps {
            if running.iter().all(|&pid| test_kill_process(pid).is_err()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    if let Some(directory) = directory {
        remove(&directory);
    }
}

fn read(notes: impl BufRead) -> (BTreeSet<u32>, Option<PathBuf>) {
    let (mut running, mut directory) = (BTreeSet::new(), None);
    for line in notes.lines().map_while(io::Result::ok) {
        match Note::parse(&line) {
            Some(Note::Started(pid)) => drop(running.insert(pid)),
            Some(Note::Ended(pid)) => drop(running.remove(&pid)),
            Some(Note::Directory(path)) => directory = Some(path),
            None => {}
        }
    }
    (running, directory)
}

/// Removes the work directory.
pub(crate) fn remove(directory: &Path) {
    // Nothing can be done about what is left; the demo checks that nothing is.
    let _left = std::fs::remove_dir_all(directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_count_of_what_runs() {
        let notes = [
            Note::Started(7),
            Note::Directory("/tmp/a b".into()),
            Note::Started(8),
            Note::Ended(7),
            Note::Started(9),
        ];
        let text: String = notes.iter().map(Note::line).collect();
        let (running, directory) = read(format!("{text}garbage\n\n").as_bytes());
        assert_eq!((running, directory), (BTreeSet::from([8, 9]), Some(PathBuf::from("/tmp/a b"))));
    }

    #[test]
    fn ends_processes_and_removes_the_directory() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let text = Note::Started(child.id()).line() + &Note::Directory(dir.path().into()).line();
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        run(text.as_bytes());
        assert!(!reaper.join().unwrap().success());
        assert!(!dir.path().exists());
    }
}
