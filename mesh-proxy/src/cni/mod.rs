//! The CNI plugin `mesh-cni`: writes a pod's firewall rules from its node, so that the pod needs no privilege for that.
//!
//! ```text
//! container runtime ── environment, standard input ─▶ request ─▶ agent (is the pod of the mesh? with which rules?)
//!                   ◀─ standard output ── reply ◀── `init` within the pod's network namespace ◀──┘
//! ```
//! It is this program under another name, chained behind the plugins that make the pod's network. *Invariants:* what
//! they made is passed on as it is; a pod of which nobody knows whether it is of the mesh does not start, for it might
//! run without its rules; nothing is ever written into the node's own network.

mod agent;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod install;
mod namespace;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    path::Path,
    process::ExitCode,
};

use serde_json::Value;

pub use self::install::{Install, InstallError};
use self::{
    agent::Answer,
    reply::{Code, Failure},
    request::{Attachment, Command, Request},
};
use crate::init::{self, InitOptions};

/// Name by which the program is a CNI plugin.
pub const NAME: &str = "mesh-cni";
/// Most of standard input that is read, in bytes.
const MAX_INPUT: u64 = 1024 * 1024;

/// True if the program was called as the plugin.
#[must_use]
pub fn is_meant(program: Option<&OsStr>) -> bool {
    program.is_some_and(|program| Path::new(program).file_name() == Some(OsStr::new(NAME)))
}

/// Does what the container runtime asks for: the whole life of the process.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = input().and_then(|input| {
        let request = Request::read(|name| std::env::var(name).ok(), &input)?;
        act(&request).map_err(|failure| failure.of(&request))
    });
    let (text, code) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(failure) => (failure.to_json(), ExitCode::FAILURE),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn input() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let read = io::stdin().take(MAX_INPUT + 1).read_to_end(&mut input);
    read.map_err(|error| Failure::new(Code::Io, "cannot read the network configuration", &error))?;
    if input.len() as u64 > MAX_INPUT {
        let message = format!("the network configuration on standard input has more than {MAX_INPUT} bytes");
        return Err(Failure::new(Code::Undecodable, message, &"look into the files that it is made of"));
    }
    Ok(input)
}

/// What stands on standard output when all is well.
fn act(request: &Request) -> Result<String, Failure> {
    match &request.command {
        Command::Version => Ok(reply::versions(&request.version)),
        // The rules end with the pod's network namespace. STATUS says that all is well also when the agent is away:
        // else the node would be unready, and after five minutes lose all pods that run on it.
        Command::Nothing => Ok(String::new()),
        Command::Add(attachment, result) => {
            add(attachment)?;
            Ok(result.to_string())
        }
        Command::Check(attachment) => check(attachment).map(|()| String::new()),
    }
}

/// Writes the rules, if the pod is of the mesh.
fn add(attachment: &Attachment) -> Result<(), Failure> {
    let Some(options) = wanted(attachment)? else { return Ok(()) };
    namespace::within(&attachment.namespace, || init::run(&options))?.map(drop).map_err(|error| {
        Failure::new(Code::Rules, format!("{} cannot get its firewall rules", attachment.who()), &error)
    })
}

/// Sees that the rules are there.
fn check(attachment: &Attachment) -> Result<(), Failure> {
    let Some(options) = wanted(attachment)? else { return Ok(()) };
    let problem = match namespace::within(&attachment.namespace, || init::is_in_force(&options))? {
        Ok(true) => return Ok(()),
        Ok(false) => {
            "the table `inet mesh` is missing or was changed; delete the pod to have it made anew".into()
        }
        Err(error) => error.to_string(),
    };
    Err(Failure::new(Code::Rules, format!("{} is without its firewall rules", attachment.who()), &problem))
}

/// The rules that the pod is to have. None: it is not of the mesh.
fn wanted(attachment: &Attachment) -> Result<Option<InitOptions>, Failure> {
    let Some(pod) = attachment.pod.as_ref().filter(|pod| !attachment.exclude.contains(&pod.namespace)) else {
        return Ok(None);
    };
    let args = match agent::ask(&attachment.socket, pod)? {
        Answer::Skip(_) => return Ok(None),
        Answer::Args(args) => args,
        Answer::Error(error) => {
            return Err(Failure::new(Code::TryAgain, format!("{pod} cannot be started yet"), &error));
        }
    };
    init::parse(&args).map(Some).map_err(|error| {
        Failure::new(Code::Rules, format!("{pod} asks for firewall rules that cannot be made"), &error)
    })
}

/// A result of other plugins, as they wrote it.
type Passed = Value;
