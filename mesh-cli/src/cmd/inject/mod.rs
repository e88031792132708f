//! `meshctl inject` and `meshctl uninject`: by hand what the controller's webhook does. Nothing is sent anywhere.

mod documents;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use mesh_k8s::inject::{Config, Native, Nonce, Outcome, Server, Skip, inject_object, uninject_object};
use serde_json::Value;

use self::documents::{Change, Changed};
use crate::{
    Exit,
    cli::{InjectArgs, NativeSidecars, UninjectArgs},
    out::Out,
};

/// Largest input, in bytes.
const MAX_INPUT: u64 = 64 << 20;

/// Runs `meshctl inject`.
pub(crate) fn inject(args: &InjectArgs, out: &Out) -> anyhow::Result<Exit> {
    let config = config(args)?;
    let change = |object: &Value| {
        let mut random = [0; Nonce::LEN];
        if aws_lc_rs::rand::fill(&mut random).is_err() {
            return Change::Refused(vec![
                "this machine has no random numbers for its proxy; try again".to_owned(),
            ]);
        }
        match inject_object(object, &config, args.server_version, &Nonce::new(random)) {
            None => Change::None(None),
            Some(Outcome::Injected(new)) => Change::New(new),
            Some(Outcome::Skipped(skip)) => Change::None(Some(remark(skip))),
            Some(Outcome::Refused(refusals)) => {
                Change::Refused(refusals.iter().map(ToString::to_string).collect())
            }
        }
    };
    run(&args.file, out, change)
}

/// Runs `meshctl uninject`.
pub(crate) fn uninject(args: &UninjectArgs, out: &Out) -> anyhow::Result<Exit> {
    run(&args.file, out, |object| uninject_object(object).map_or(Change::None(None), Change::New))
}

fn remark(skip: Skip) -> (&'static str, bool) {
    match skip {
        Skip::Disabled | Skip::AlreadyInjected => (skip.why(), false),
        Skip::HostNetwork | Skip::Windows => (skip.why(), true),
    }
}

fn config(args: &InjectArgs) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        None => Config::default(),
        Some(path) => {
            let text = read(path)?;
            Config::from_yaml(&text).with_context(|| path.display().to_string())?
        }
    };
    let set = |slot: &mut String, value: &Option<String>| {
        if let Some(value) = value {
            slot.clone_from(value);
        }
    };
    set(&mut config.proxy_image, &args.proxy_image);
    set(&mut config.controller, &args.controller);
    set(&mut config.log_level, &args.proxy_log_level);
    set(&mut config.trust_domain, &args.trust_domain);
    match args.native_sidecars {
        None => {}
        Some(NativeSidecars::Auto) => config.native_sidecars = Native::Auto,
        Some(NativeSidecars::True) => config.native_sidecars = Native::Always,
        Some(NativeSidecars::False) => config.native_sidecars = Native::Never,
    }
    config.check().context("flags")?;
    Ok(config)
}

/// Writes what is changed only if nothing was refused: what is piped on must be whole.
fn run(files: &[PathBuf], out: &Out, change: impl Fn(&Value) -> Change) -> anyhow::Result<Exit> {
    let mut all = Changed::default();
    for file in files {
        let name = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
        documents::change(&name, &read(file)?, &change, &mut all)?;
    }
    for warning in &all.warnings {
        out.warning(warning);
    }
    for remark in &all.remarks {
        out.detail(remark);
    }
    if !all.refusals.is_empty() {
        bail!("nothing was written:\n{}", all.refusals.join("\n"));
    }
    out.line(&all.text)?;
    Ok(Exit::Ok)
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let reader: Box<dyn io::Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    let read = reader.take(MAX_INPUT + 1).read_to_string(&mut text);
    let count = read.with_context(|| format!("cannot read {}", file.display()))?;
    if count as u64 > MAX_INPUT {
        bail!("{} has more than {MAX_INPUT} bytes: split it", file.display());
    }
    Ok(text)
}

/// Reads a version of Kubernetes, as in 1.34.
pub(crate) fn server_version(text: &str) -> Result<Server, &'static str> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts = text.split('.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => Server::parse(major, minor),
        _ => None,
    }
    .ok_or("expected a version of Kubernetes, as in 1.34")
}
