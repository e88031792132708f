//! What applies: of each object its newest version that is good, whatever became of its file since.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use mesh_core::name::ObjectRef;
use mesh_k8s::{Compiled, Located, Place, Problem, Settings};

use super::scan::{Content, Files};

/// What became of the files.
pub(crate) struct Outcome {
    /// What proxies are told.
    pub(crate) compiled: Compiled,
    /// Everything that is wrong, by file and line.
    pub(crate) problems: Vec<Problem>,
    /// Objects that apply.
    pub(crate) objects: usize,
}

/// One file, as it was parsed last.
struct File {
    content: Content,
    located: Vec<Located>,
    problems: Vec<Problem>,
    /// False: the file as a whole could not be read, so what it held before stays.
    whole: bool,
}

/// Remembers the last good version of every object.
pub(super) struct LastGood {
    settings: Settings,
    files: BTreeMap<Arc<str>, File>,
    good: HashMap<ObjectRef, Located>,
}

impl LastGood {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, files: BTreeMap::new(), good: HashMap::new() }
    }

    /// Takes the files as they are now.
    pub(super) fn apply(&mut self, files: Files) -> Outcome {
        let mut before = std::mem::take(&mut self.files);
        for (name, content) in files {
            let file = match before.remove(&name) {
                Some(file) if file.content == content => file,
                _ => File::parse(&name, content),
            };
            self.files.insert(name, file);
        }
        self.compile()
    }

    /// Compiles what is there, and puts the last good version in the place of each object that is refused.
    pub(super) fn compile(&mut self) -> Outcome {
        let mut objects = self.candidates();
        let mut problems: Vec<Problem> = self.files.values().flat_map(|file| file.problems.clone()).collect();
        let mut compiled = mesh_k8s::compile(&objects, &self.settings);
        let mut replaced = HashSet::new();
        // A replacement can make others good or bad; each object is replaced once, so this ends.
        loop {
            let refused = refused(&compiled.problems);
            let mut again = false;
            for object in &mut objects {
                let reference = object.reference();
                let older = self.good.get(&reference).filter(|older| older.object != object.object);
                if let Some(older) = older
                    && is_refused(&refused, object)
                    && replaced.insert(reference.clone())
                {
                    problems.extend(compiled.problems.iter().filter(|p| concerns(p, &reference)).cloned());
                    *object = older.clone();
                    again = true;
                }
            }
            if !again {
                break;
            }
            compiled = mesh_k8s::compile(&objects, &self.settings);
        }
        let refused = refused(&compiled.problems);
        // What was replaced has been reported where its newest version stands.
        problems.extend(
            compiled
                .problems
                .iter()
                .filter(|p| !p.object.as_ref().is_some_and(|object| replaced.contains(object)))
                .cloned(),
        );
        problems.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.field.cmp(&b.field)));
        let applied = objects.iter().filter(|object| !is_refused(&refused, object)).count();
        self.remember(objects, &refused);
        Outcome { compiled, problems, objects: applied }
    }

    /// What the files hold, and what they held before where they cannot be read or an object in them is refused.
    fn candidates(&self) -> Vec<Located> {
        let mut objects: Vec<Located> = self.files.values().flat_map(|file| file.located.clone()).collect();
        let mut present: HashSet<ObjectRef> = objects.iter().map(Located::reference).collect();
        for (name, file) in &self.files {
            let refused: HashSet<&ObjectRef> =
                file.problems.iter().filter(|p| p.refused).filter_map(|p| p.object.as_ref()).collect();
            if file.whole && refused.is_empty() {
                continue;
            }
            let mut kept: Vec<&Located> = self
                .good
                .iter()
                .filter(|(reference, old)| {
                    refused.contains(reference) || (!file.whole && old.place.file == *name)
                })
                .map(|(_, old)| old)
                .collect();
            kept.sort_by(|a, b| a.place.cmp(&b.place));
            for old in kept {
                if present.insert(old.reference()) {
                    objects.push(old.clone());
                }
            }
        }
        objects
    }

    fn remember(&mut self, objects: Vec<Located>, refused: &[(ObjectRef, Place)]) {
        let before = std::mem::take(&mut self.good);
        for object in objects {
            let reference = object.reference();
            if !is_refused(refused, &object) {
                self.good.entry(reference).or_insert(object);
            } else if let Some(old) = before.get(&reference) {
                self.good.entry(reference).or_insert_with(|| old.clone());
            }
        }
    }
}

impl File {
    fn parse(name: &Arc<str>, content: Content) -> Self {
        let (located, problems, whole) = match &content {
            Content::Text(text) => mesh_k8s::parse(name, text),
            Content::Unreadable(why) => {
                let problem = Problem {
                    object: None,
                    place: Place { file: Arc::clone(name), line: 0 },
                    field: String::new(),
                    message: format!("the file cannot be read: {why}"),
                    remedy: "until it can, the last good version of its objects stays".into(),
                    refused: true,
                };
                (Vec::new(), vec![problem], false)
            }
        };
        Self { content, located, problems, whole }
    }
}

fn refused(problems: &[Problem]) -> Vec<(ObjectRef, Place)> {
    problems
        .iter()
        .filter(|problem| problem.refused)
        .filter_map(|problem| Some((problem.object.clone()?, problem.place.clone())))
        .collect()
}

/// True when a refusal concerns this very object, and not another of the same name in another place: the line of a
/// problem is at or after the line where its object begins.
fn is_refused(refused: &[(ObjectRef, Place)], object: &Located) -> bool {
    let reference = object.reference();
    refused.iter().any(|(other, place)| {
        *other == reference && place.file == object.place.file && place.line >= object.place.line
    })
}

fn concerns(problem: &Problem, reference: &ObjectRef) -> bool {
    problem.object.as_ref() == Some(reference)
}

#[cfg(test)]
mod tests;
