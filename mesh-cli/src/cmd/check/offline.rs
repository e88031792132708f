//! `meshctl check --source DIR`: the YAML of a directory, without a controller. Reads and compiles it exactly as the
//! controller does.

use std::path::Path;

use anyhow::{Context as _, bail};
use mesh_k8s::{Located, Place, Problem, Settings};
use mesh_proto::{common::v1::ObjectRef, view::v1 as pb};

use super::{
    control_plane,
    model::{Check, Report},
    source::{self, Found},
};
use crate::{cli::CheckArgs, out::units};

/// Checks the files of a directory.
pub(super) fn check(directory: &Path, args: &CheckArgs) -> anyhow::Result<Report> {
    let files = source::read(directory)
        .with_context(|| format!("cannot read the directory {}", directory.display()))?;
    if files.is_empty() {
        bail!(
            "{} holds no *.yaml or *.yml files; name the directory that the controller reads",
            directory.display()
        );
    }
    let mut objects: Vec<Located> = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    let mut read = 0;
    for Found { name, content } in &files {
        match content {
            Ok(text) => {
                let (found, wrong, _) = mesh_k8s::parse(name, text);
                objects.extend(found);
                problems.extend(wrong);
                read += 1;
            }
            Err(why) => problems.push(unreadable(name, why)),
        }
    }
    let settings = Settings {
        trust_domain: args.trust_domain.clone(),
        cluster_domain: args.cluster_domain.as_str().into(),
    };
    let compiled = mesh_k8s::compile(&objects, &settings);
    problems.extend(compiled.problems);
    problems.sort_by(|a, b| (&a.place, &a.field).cmp(&(&b.place, &b.field)));
    let problems: Vec<pb::Problem> = problems.iter().map(message).collect();
    let counts = format!(
        "{}, {}, {}",
        units::count(read, "file", "files"),
        units::count(objects.len(), "object", "objects"),
        units::count(compiled.workloads.len(), "workload", "workloads"),
    );
    let mut checks = vec![Check::ok("Source", "the directory can be read", counts)];
    checks.extend(control_plane::problems(&problems, false));
    Ok(Report::new(checks))
}

fn unreadable(name: &str, why: &str) -> Problem {
    Problem {
        object: None,
        place: Place { file: name.into(), line: 0 },
        field: String::new(),
        message: why.to_owned(),
        remedy: "make it UTF-8 text within the limits that the controller may read, or move it away".into(),
        refused: true,
        is_conflict: false,
    }
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
