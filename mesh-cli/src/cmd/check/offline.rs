//! `meshctl check --source DIR`: the YAML of a directory, without a controller. Reads and compiles it exactly as the
//! controller does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use mesh_core::ports::{DEFAULT_CLUSTER_DOMAIN, DEFAULT_TRUST_DOMAIN};
use mesh_k8s::{Located, Problem, Settings};
use mesh_proto::{common::v1::ObjectRef, view::v1 as pb};

use super::{
    control_plane,
    model::{Check, Report},
};
use crate::out::units;

/// Deepest directory below the source that is read.
const MAX_DEPTH: usize = 16;
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Checks the files of a directory.
pub(super) fn check(directory: &Path) -> anyhow::Result<Report> {
    let mut files = Vec::new();
    collect(directory, 0, &mut files)
        .with_context(|| format!("cannot read the directory {}", directory.display()))?;
    if files.is_empty() {
        bail!(
            "{} holds no *.yaml or *.yml files; name the directory that the controller reads",
            directory.display()
        );
    }
    files.sort();
    let mut objects: Vec<Located> = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    for path in &files {
        let name = path.strip_prefix(directory).unwrap_or(path).to_string_lossy().into_owned();
        let size = fs::metadata(path).map(|meta| meta.len()).unwrap_or_default();
        if size > MAX_FILE {
            bail!(
                "{} has {}; at most {} are read",
                path.display(),
                units::bytes(size),
                units::bytes(MAX_FILE)
            );
        }
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (found, wrong, _) = mesh_k8s::parse(&name, &String::from_utf8_lossy(&text));
        objects.extend(found);
        problems.extend(wrong);
    }
    let settings = Settings {
        trust_domain: DEFAULT_TRUST_DOMAIN.parse().context("trust domain")?,
        cluster_domain: DEFAULT_CLUSTER_DOMAIN.into(),
    };
    let compiled = mesh_k8s::compile(&objects, &settings);
    problems.extend(compiled.problems);
    problems.sort_by(|a, b| (&a.place, &a.field).cmp(&(&b.place, &b.field)));
    let problems: Vec<pb::Problem> = problems.iter().map(message).collect();
    let counts = format!(
        "{}, {}, {}",
        units::count(files.len(), "file", "files"),
        units::count(objects.len(), "object", "objects"),
        units::count(compiled.workloads.len(), "workload", "workloads"),
    );
    let mut checks = vec![Check::ok("Source", "the files can be read", counts)];
    checks.extend(control_plane::problems(&problems, false));
    Ok(Report::new(checks))
}

/// As the controller would report it.
fn message(problem: &Problem) -> pb::Problem {
    let object = problem.object.as_ref().map(|object| ObjectRef {
        kind: object.kind.to_string(),
        namespace: object.namespace.to_string(),
        name: object.name.to_string(),
    });
    pb::Problem {
        object,
        file: problem.place.file.to_string(),
        line: problem.place.line,
        field: problem.field.clone(),
        message: problem.message.clone(),
        remedy: problem.remedy.clone(),
        refused: problem.refused,
    }
}

/// Files named *.yaml or *.yml, those in hidden directories and hidden files left out.
fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if hidden {
            continue;
        }
        if path.is_dir() && depth < MAX_DEPTH {
            collect(&path, depth + 1, files)?;
        } else if yaml && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
