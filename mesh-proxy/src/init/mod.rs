//! `mesh-proxy init`: firewall rules that lead the workload's connections through the proxy.
//!
//! Read in this order: [`cli`] is what is typed, [`plan`] makes the rules of it, [`model`] is what rules are made of;
//! [`netlink`] gives them to the kernel and [`text`] shows them. One table is ours; nothing else is touched.

mod cgroup;
mod cli;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod model;
mod netlink;
mod plan;
#[cfg(test)]
mod tests;
mod text;
mod values;

use clap::Parser as _;

pub(crate) use self::values::number;
pub use self::{
    cgroup::CgroupError,
    cli::{InitOptions, UsageError},
    netlink::KernelError,
};

/// Why the rules were not made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// What was typed makes no sense.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The kernel does not take them.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl InitError {
    /// The process's exit code: 1, the kernel does not take them; 2, what was typed makes no sense.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Kernel(_) => 1,
        }
    }
}

/// Reads flags of `mesh-proxy init` that came from elsewhere than a command line. They can only make rules.
///
/// # Errors
/// What is wrong with them, in one line.
pub(crate) fn parse(args: &[String]) -> Result<InitOptions, String> {
    let typed = std::iter::once("mesh-proxy init").chain(args.iter().map(String::as_str));
    let typed = Typed::try_parse_from(typed).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })?;
    if typed.options.remove || typed.options.print {
        return Err("--remove and --print make no rules".to_owned());
    }
    Ok(typed.options)
}

#[derive(clap::Parser)]
struct Typed {
    #[command(flatten)]
    options: InitOptions,
}

/// True if the kernel has a table with as many rules as the flags mean.
///
/// # Errors
/// [`InitError`].
pub(crate) fn is_in_force(options: &InitOptions) -> Result<bool, InitError> {
    let wanted: usize = options.plan()?.table().chains.iter().map(|chain| chain.rules.len()).sum();
    Ok(netlink::count(plan::TABLE)? == wanted)
}

/// Makes, removes or shows the rules. The text is for standard output.
///
/// # Errors
/// [`InitError`]; nothing has changed then.
pub fn run(options: &InitOptions) -> Result<String, InitError> {
    if options.remove {
        if options.print {
            return Ok(format!("add table inet {0}\ndelete table inet {0}\n", plan::TABLE));
        }
        netlink::remove(plan::TABLE).commit()?;
        return Ok(String::new());
    }
    let table = options.plan()?.table();
    if options.print {
        return Ok(text::Script(&table).to_string());
    }
    netlink::replace(&table).commit()?;
    Ok(String::new())
}
