//! Network namespaces for tests: a holder process keeps one, threads and programs enter it.

use std::{
    fs::{File, read_link},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace of its own, with loopback up, as long as this lives.
pub(crate) struct Namespace {
    holder: Child,
}

/// A new namespace. None, said loudly: this process may not make one.
pub(crate) fn namespace() -> Option<Namespace> {
    if !rustix::process::getuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "interception is not tested: CI must run as root");
        #[expect(clippy::print_stdout, reason = "whoever runs the tests must see it")]
        {
            println!("LEFT OUT: interception is not tested, for that needs root");
        }
        return None;
    }
    let holder = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
    let namespace = Namespace { holder };
    let own = read_link("/proc/self/ns/net").unwrap();
    while read_link(namespace.path()).unwrap() == own {
        std::thread::sleep(Duration::from_millis(2));
    }
    namespace.ip("link set lo up");
    Some(namespace)
}

impl Namespace {
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// A program in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string(), "--", program]);
        command
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, args: &str) {
        let outcome = self.command("ip").args(args.split_whitespace()).output().unwrap();
        assert!(outcome.status.success(), "ip {args}: {}", String::from_utf8_lossy(&outcome.stderr));
    }

    /// Links it with another one; names of the ends, here and there.
    pub(crate) fn link(&self, here: &str, other: &Self, there: &str) {
        self.ip(&format!("link add {here} type veth peer name {there} netns {}", other.holder.id()));
    }

    /// Runs `mesh-proxy init`.
    pub(crate) fn try_init(&self, flags: &str) -> Output {
        let mut init = self.command(env!("CARGO_BIN_EXE_mesh-proxy"));
        init.arg("init").args(flags.split_whitespace()).output().unwrap()
    }

    /// Runs `mesh-proxy init`, and returns what it prints.
    pub(crate) fn init(&self, flags: &str) -> String {
        let outcome = self.try_init(flags);
        assert!(outcome.status.success(), "{flags}: {}", String::from_utf8_lossy(&outcome.stderr));
        String::from_utf8(outcome.stdout).unwrap()
    }

    /// Hands a script to `nft`.
    pub(crate) fn nft(&self, script: &str) {
        use std::io::Write as _;
        let mut nft = self.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{script}");
    }

    /// Runs a function in it, on a thread of its own.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let file = File::open(self.path()).unwrap();
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
                .unwrap();
            act()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
