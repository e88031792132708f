//! The processes of the demo: started, watched, and ended in order.

use std::{
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
use tokio::process::Command;

use super::{
    layout::Member,
    namespaces::Namespaces,
    process::{Process, successor},
    watchdog::Note,
};

/// How long a process may take to end after SIGTERM, before it is killed: a machine with much to do needs its time.
const GRACE: Duration = Duration::from_secs(10);
/// How the names of sidecars begin; their workload's follows.
pub(crate) const SIDECAR: &str = "sidecar-";
/// Lines of a log that an error shows.
const LOG_LINES: usize = 6;

/// Running processes.
#[derive(Debug)]
pub(crate) struct Children {
    logs: PathBuf,
    watchdog: std::process::Child,
    running: Vec<Running>,
    /// Where they stand, when every workload has a place of its own.
    namespaces: Option<Namespaces>,
    /// Who stands outside all the same.
    outside: Option<&'static str>,
    /// Whose log explains the last error.
    blamed: Option<String>,
}

#[derive(Debug)]
struct Running {
    name: String,
    pid: u32,
    process: Process,
    args: Vec<String>,
    /// It has come so far that it handles SIGTERM.
    ready: bool,
}

impl Children {
    /// Starts the watchdog; processes write their output to files in `logs`. `remove`: what the watchdog removes when
    /// meshctl is killed.
    ///
    /// # Errors
    /// When the directory or the process cannot be made.
    pub(crate) fn new(meshctl: &Path, logs: PathBuf, remove: Option<&Path>) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let watchdog = std::process::Command::new(meshctl)
            .args(["demo", "--watchdog"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the terminal's group: only meshctl is to hear it.
            .process_group(0)
            .spawn()
            .context("cannot start the watchdog")?;
        let mut children =
            Self { logs, watchdog, running: Vec::new(), namespaces: None, outside: None, blamed: None };
        // A sidecar that upgrades itself leaves its successor to meshctl. Where that is not allowed, an upgrade ends the demo.
        let _refused = set_child_subreaper(Some(getpid()));
        if let Some(directory) = remove {
            children.note(&Note::Directory(directory.into()));
        }
        Ok(children)
    }

    /// From now on, processes start in the network namespace of the workload that they are named after; only the
    /// application of the workload `without` does not.
    pub(crate) fn stand_in(&mut self, namespaces: Namespaces, without: Option<Member>) {
        self.namespaces = Some(namespaces);
        self.outside = without.map(|member| member.name);
    }

    /// The namespaces, if there are any.
    pub(crate) fn namespaces(&self) -> Option<&Namespaces> {
        self.namespaces.as_ref()
    }

    /// Starts a process that runs until it is stopped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(&mut self, name: &str, program: &Path, args: &[String]) -> anyhow::Result<()> {
        let log = self.log(name)?;
        let mut command = self.command(program, args);
        command.stdout(log.try_clone()?).stderr(log);
        self.spawn(name, &mut command)
    }

    /// Runs a process to its end and returns what it wrote to stdout.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) async fn run(
        &mut self,
        name: &str,
        program: &Path,
        args: &[String],
    ) -> anyhow::Result<(ExitStatus, String)> {
        let log = self.log(name)?;
        let mut command = self.command(program, args);
        command.stdout(Stdio::piped()).stderr(log);
        self.spawn(name, &mut command)?;
        let Some(process) = self.running.last_mut() else { bail!("{name} is not running") };
        let pid = process.pid;
        let mut text = String::new();
        if let Process::Started(child) = &mut process.process
            && let Some(mut stdout) = child.stdout.take()
        {
            use tokio::io::AsyncReadExt as _;
            stdout.read_to_string(&mut text).await.with_context(|| format!("cannot read from {name}"))?;
        }
        let status = process.process.wait().await.with_context(|| format!("cannot wait for {name}"))?;
        self.running.retain(|process| process.pid != pid);
        self.note(&Note::Ended(pid));
        Ok((status, text))
    }

    fn command(&self, program: &Path, args: &[String]) -> Command {
        let mut command = Command::new(program);
        command.args(args).process_group(0).kill_on_drop(true);
        // It ends with meshctl when it is one that looks at its standard input.
        command.stdin(Stdio::piped());
        // What the user's shell says of another mesh must not reach this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MESH_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn spawn(&mut self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        let spawned = match &self.namespaces {
            Some(all) if self.outside != Some(name) => {
                all.within(name.strip_prefix(SIDECAR).unwrap_or(name), || command.spawn())?
            }
            Some(_) | None => command.spawn(),
        };
        let child = spawned.with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        self.note(&Note::Started(pid));
        let args = command.as_std().get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let process = Process::Started(child);
        self.running.push(Running { name: name.to_owned(), pid, process, args, ready: false });
        Ok(())
    }

    fn log(&self, name: &str) -> anyhow::Result<File> {
        let path = self.logs.join(format!("{name}.log"));
        let open = File::options().create(true).append(true).open(&path);
        open.with_context(|| format!("cannot write {}", path.display()))
    }

    fn note(&mut self, note: &Note) {
        if let Some(pipe) = &mut self.watchdog.stdin {
            // Without a watchdog the demo still works: then only kill -9 leaves something behind.
            let _no_watchdog = pipe.write_all(note.line().as_bytes());
        }
    }

    /// An error that names a process which has ended although nobody asked it to.
    ///
    /// # Errors
    /// That is its purpose.
    pub(crate) fn all_run(&mut self) -> anyhow::Result<()> {
        self.follow_upgrades();
        for process in &mut self.running {
            if let Some(status) = process.process.try_wait()? {
                self.blamed = Some(process.name.clone());
                bail!("{} ended by itself ({status})", process.name);
            }
        }
        Ok(())
    }

    /// A sidecar that ended well because another one took over is that one from now on.
    fn follow_upgrades(&mut self) {
        let mut notes = Vec::new();
        for running in self.running.iter_mut().filter(|running| running.name.starts_with(SIDECAR)) {
            if !matches!(running.process.try_wait(), Ok(Some(status)) if status.success()) {
                continue;
            }
            if let Some(pid) = successor(&running.args) {
                let new = pid.as_raw_nonzero().get().unsigned_abs();
                notes.extend([Note::Ended(running.pid), Note::Started(new)]);
                (running.pid, running.process) = (new, Process::adopted(pid));
            }
        }
        notes.iter().for_each(|note| self.note(note));
    }

    /// Notes that everything that runs is ready, so that it must end well when it is asked to.
    pub(crate) fn all_ready(&mut self) {
        self.running.iter_mut().for_each(|process| process.ready = true);
    }

    /// Says whose log explains the error that follows.
    pub(crate) fn blame(&mut self, name: &str) {
        self.blamed = Some(name.to_owned());
    }

    /// The last lines of the log of whom was blamed.
    pub(crate) fn last_words(&self) -> Option<String> {
        let name = self.blamed.as_ref()?;
        let lines = last_lines(&self.logs.join(format!("{name}.log")));
        (!lines.is_empty()).then(|| format!("The last lines of the log of {name}:\n{lines}"))
    }

    /// Ends those processes whose name `which` picks, all at the same time. Returns what did not go well.
    pub(crate) async fn stop(&mut self, which: impl Fn(&str) -> bool) -> Vec<String> {
        self.follow_upgrades();
        let (mut ending, rest) = std::mem::take(&mut self.running).into_iter().partition(|p| which(&p.name));
        self.running = rest;
        let mut problems = Vec::new();
        let ending: &mut Vec<Running> = &mut ending;
        for process in ending.iter_mut() {
            let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
            // Not waited for yet, so that its number cannot be anybody else's.
            if let (Ok(None), Some(pid)) = (process.process.try_wait(), pid) {
                let _gone = kill_process(pid, Signal::TERM);
            } else {
                // It had ended before it was asked to, and how it did tells.
                process.ready = true;
            }
        }
        let deadline = tokio::time::Instant::now() + GRACE;
        for process in ending.iter_mut() {
            match tokio::time::timeout_at(deadline, process.process.wait()).await {
                Ok(Ok(status)) if status.success() || process.was_starting(status) => {}
                Ok(Ok(status)) => problems.push(format!("{} ended with {status}", process.name)),
                Ok(Err(error)) => problems.push(format!("{}: {error}", process.name)),
                Err(_) => {
                    problems.push(format!("{} did not end within {GRACE:?} and was killed", process.name));
                    // It cannot be ignored; waiting reaps it.
                    let _killed = process.process.kill().await;
                }
            }
            self.note(&Note::Ended(process.pid));
        }
        problems
    }

    /// Ends the watchdog, which has nothing to do any more.
    pub(crate) async fn end_watchdog(mut self) {
        drop(self.watchdog.stdin.take());
        let _ended = tokio::task::spawn_blocking(move || self.watchdog.wait()).await;
    }
}

impl Running {
    /// True when SIGTERM met the process before it could handle the signal: its end is what was asked for.
    fn was_starting(&self, status: ExitStatus) -> bool {
        !self.ready && status.signal() == Some(Signal::TERM.as_raw())
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| format!("  {line}\n")).collect()
}

/// Addresses on which something still listens.
pub(crate) async fn still_listening(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for &address in addresses {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children(dir: &Path) -> Children {
        // `true` ignores what it is told and ends: a demo without watchdog must work.
        Children::new(Path::new("true"), dir.into(), None).unwrap()
    }

    fn sh(script: &str) -> [String; 2] {
        ["-c".into(), script.into()]
    }

    #[tokio::test]
    async fn stops_what_it_started_and_says_what_went_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = children(dir.path());
        children
            .start("good", Path::new("sh"), &sh("trap 'exit 0' TERM; while :; do sleep 0.05; done"))
            .unwrap();
        children
            .start("bad", Path::new("sh"), &sh("trap 'exit 9' TERM; while :; do sleep 0.05; done"))
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        children.all_run().unwrap();
        assert_eq!(children.stop(|name| name == "good").await, Vec::<String>::new());
        assert_eq!(children.stop(|_| true).await, ["bad ended with exit status: 9"]);
        children.end_watchdog().await;
    }

    #[tokio::test]
    async fn sigterm_ends_what_does_not_handle_it_yet_and_that_is_well() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = children(dir.path());
        let starts = |children: &mut Children| children.start("proxy", Path::new("sleep"), &["60".into()]);
        starts(&mut children).unwrap();
        assert_eq!(children.stop(|_| true).await, Vec::<String>::new());
        starts(&mut children).unwrap();
        children.all_ready();
        assert_eq!(children.stop(|_| true).await, ["proxy ended with signal: 15 (SIGTERM)"]);
        // Killed by somebody else, whenever.
        children.start("proxy", Path::new("sh"), &sh("kill $$")).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(children.stop(|_| true).await, ["proxy ended with signal: 15 (SIGTERM)"]);
    }

    /// As an upgrade does: a process with the same arguments takes over, and the first one ends well.
    #[tokio::test]
    async fn who_takes_over_from_a_sidecar_is_followed_and_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = children(dir.path());
        let script = "if test $AGE; then trap 'exit 7' TERM; while :; do sleep 0.05; done; fi; \
                      own=$(tr '\\0' '\\n' < /proc/$$/cmdline | tail -n 1); AGE=2 sh -c \"$own\" & exit 0";
        children.start("sidecar-a", Path::new("sh"), &sh(script)).unwrap();
        let first = children.running[0].pid;
        let deadline = tokio::time::Instant::now() + GRACE;
        while children.running[0].pid == first {
            assert!(tokio::time::Instant::now() < deadline, "nobody took over");
            tokio::time::sleep(Duration::from_millis(20)).await;
            children.all_run().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        children.all_ready();
        assert_eq!(children.stop(|_| true).await, ["sidecar-a ended with exit status: 7"]);
        assert_eq!(successor(&sh(script)), None, "nothing is left");
        // One that nobody takes over from has ended by itself.
        children.start("sidecar-b", Path::new("sh"), &sh("exit 0")).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        children.all_run().unwrap_err();
    }

    #[tokio::test]
    async fn a_process_that_ends_by_itself_is_named_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = children(dir.path());
        children.start("proxy", Path::new("sh"), &sh("echo no token >&2; exit 3")).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let error = children.all_run().unwrap_err().to_string();
        assert_eq!(error, "proxy ended by itself (exit status: 3)");
        assert_eq!(children.last_words().unwrap(), "The last lines of the log of proxy:\n  no token\n");
        let (status, text) = children.run("job", Path::new("sh"), &sh("echo out; exit 2")).await.unwrap();
        assert_eq!((status.code(), text.as_str()), (Some(2), "out\n"));
    }
}
