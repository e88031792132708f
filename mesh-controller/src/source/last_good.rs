//! What applies: of each object its newest version that is good, whatever became of its file since.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use mesh_core::name::ObjectRef;
use mesh_k8s::{Compiled, Located, Place, Problem, Resolved, Settings, Standing};

use super::{
    scan::{Content, Files},
    state::{Force, Observed, State},
};

/// What became of the files.
pub(crate) struct Outcome {
    /// What proxies are told.
    pub(crate) compiled: Compiled,
    /// Everything that is wrong, by place.
    pub(crate) problems: Vec<Problem>,
    /// Objects that apply.
    pub(crate) objects: usize,
    /// How each object stands that is told so, by place.
    pub(crate) states: BTreeMap<Arc<str>, State>,
}

/// One file, or one object of a cluster, as it was parsed last.
#[derive(PartialEq)]
pub(super) struct File {
    /// None: it is no file.
    content: Option<Content>,
    located: Vec<Located>,
    problems: Vec<Problem>,
    /// False: the file as a whole could not be read, so what it held before stays.
    whole: bool,
    /// The object is told how it stands.
    observed: Option<Arc<Observed>>,
}

/// Remembers the last good version of every object.
pub(super) struct LastGood {
    settings: Settings,
    /// Addresses of hosts outside of the mesh.
    pub(super) resolved: Resolved,
    files: BTreeMap<Arc<str>, File>,
    good: HashMap<ObjectRef, Located>,
}

impl LastGood {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, resolved: Resolved::new(), files: BTreeMap::new(), good: HashMap::new() }
    }

    /// Takes the files as they are now.
    pub(super) fn apply(&mut self, files: Files) -> Outcome {
        let mut before = std::mem::take(&mut self.files);
        for (name, content) in files {
            let file = match before.remove(&name) {
                Some(file) if file.content.as_ref() == Some(&content) => file,
                _ => File::parse(&name, content),
            };
            self.files.insert(name, file);
        }
        self.compile()
    }

    /// Takes objects that were added, changed, or removed (None). None: nothing is another than before.
    pub(super) fn change(&mut self, objects: BTreeMap<Arc<str>, Option<File>>) -> Option<Outcome> {
        let mut changed = false;
        for (place, file) in objects {
            changed |= match file {
                Some(file) if self.files.get(&place) == Some(&file) => false,
                Some(file) => {
                    self.files.insert(place, file);
                    true
                }
                None => self.files.remove(&place).is_some(),
            };
        }
        changed.then(|| self.compile())
    }

    /// Compiles what is there, and puts the last good version in the place of each object that is refused.
    pub(super) fn compile(&mut self) -> Outcome {
        let mut objects = self.candidates();
        self.rank(&mut objects);
        let mut problems: Vec<Problem> = self.files.values().flat_map(|file| file.problems.clone()).collect();
        let mut compiled = mesh_k8s::compile_with(&objects, &self.settings, &self.resolved);
        let mut replaced = HashSet::new();
        // A replacement can make others good or bad; each object is replaced once, so this ends.
        while let Some(next) = self.replace(&objects, &compiled, &mut replaced) {
            let newly = |p: &&Problem| p.object.as_ref().is_some_and(|object| next.contains_key(object));
            problems.extend(compiled.problems.iter().filter(newly).cloned());
            for object in &mut objects {
                if let Some(older) = next.get(&object.reference()) {
                    *object = Located { standing: Standing::Unchanged, ..older.clone() };
                }
            }
            compiled = mesh_k8s::compile_with(&objects, &self.settings, &self.resolved);
        }
        // What was replaced has been reported where its newest version stands.
        let reported = |p: &&Problem| p.object.as_ref().is_some_and(|object| replaced.contains(object));
        problems.extend(compiled.problems.iter().filter(|p| !reported(p)).cloned());
        problems.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.field.cmp(&b.field)));
        let applied: HashSet<ObjectRef> =
            objects.iter().filter(|object| applies(&compiled, object)).map(Located::reference).collect();
        self.remember(objects, &compiled);
        let states = self.states(&problems, &applied);
        Outcome { compiled, problems, objects: applied.len(), states }
    }

    /// Tells what applied before from newcomers, so that none of these takes the place of what runs.
    fn rank(&self, objects: &mut [Located]) {
        for object in objects.iter_mut().filter(|object| object.standing != Standing::StandIn) {
            object.standing = match self.good.get(&object.reference()) {
                Some(old) if old.object == object.object => Standing::Unchanged,
                Some(old) if old.place.file == object.place.file => Standing::Changed,
                _ => Standing::New,
            };
        }
    }

    /// Older versions for objects that are refused and were not replaced yet; None when there are none. Where two
    /// objects have one name, the one that applies is newer than any older version of the other.
    fn replace(
        &self,
        objects: &[Located],
        compiled: &Compiled,
        replaced: &mut HashSet<ObjectRef>,
    ) -> Option<HashMap<ObjectRef, Located>> {
        let mut holders: HashMap<ObjectRef, usize> = HashMap::new();
        for object in objects.iter().filter(|object| object.standing != Standing::StandIn) {
            *holders.entry(object.reference()).or_default() += 1;
        }
        let next: HashMap<ObjectRef, Located> = objects
            .iter()
            .filter(|object| is_refused(compiled, object))
            .filter_map(|object| {
                let reference = object.reference();
                let older = self.good.get(&reference).filter(|older| older.object != object.object)?;
                let alone = holders.get(&reference) == Some(&1);
                (alone && replaced.insert(reference.clone())).then(|| (reference, older.clone()))
            })
            .collect();
        (!next.is_empty()).then_some(next)
    }

    /// What the files hold, and what they held before where they cannot be read or an object in them is refused.
    fn candidates(&self) -> Vec<Located> {
        let all = self.files.values().flat_map(|file| file.located.clone());
        let (stand_ins, mut objects): (Vec<Located>, Vec<Located>) =
            all.partition(|object| object.standing == Standing::StandIn);
        // Beside another object of its name a stand-in still closes what it names.
        let named: HashSet<ObjectRef> = objects.iter().map(Located::reference).collect();
        let needed = |object: &Located| {
            let reference = object.reference();
            named.contains(&reference) || !self.good.contains_key(&reference)
        };
        let stand_ins: Vec<Located> = stand_ins.into_iter().filter(needed).collect();
        let problems = self.files.values().flat_map(|file| &file.problems);
        let refused: HashSet<&ObjectRef> =
            problems.filter(|p| p.refused).filter_map(|p| p.object.as_ref()).collect();
        let is_part = |name: &str| self.files.get(name).is_some_and(|file| !file.whole);
        let is_kept = |(reference, old): &(&ObjectRef, &Located)| {
            refused.contains(reference) || is_part(&old.place.file)
        };
        let mut kept: Vec<&Located> = self.good.iter().filter(is_kept).map(|(_, old)| old).collect();
        kept.sort_by(|a, b| a.place.cmp(&b.place));
        objects.extend(kept.into_iter().filter(|old| !named.contains(&old.reference())).cloned());
        objects.extend(stand_ins);
        objects
    }

    /// How objects stand that are told so.
    fn states(&self, problems: &[Problem], applied: &HashSet<ObjectRef>) -> BTreeMap<Arc<str>, State> {
        let refused: HashSet<&str> = problems.iter().filter(|p| p.refused).map(|p| &*p.place.file).collect();
        let state = |(place, file): (&Arc<str>, &File)| {
            let observed = Arc::clone(file.observed.as_ref()?);
            let force = match (refused.contains(&**place), applied.contains(&observed.reference)) {
                (false, true) => Force::Newest,
                (true, true) => Force::Kept,
                (_, false) => Force::Nothing,
            };
            Some((Arc::clone(place), State { observed, force }))
        };
        self.files.iter().filter_map(state).collect()
    }

    fn remember(&mut self, objects: Vec<Located>, compiled: &Compiled) {
        let before = std::mem::take(&mut self.good);
        let objects = objects.into_iter().filter(|object| object.standing != Standing::StandIn);
        let (good, refused): (Vec<_>, Vec<_>) = objects.partition(|object| applies(compiled, object));
        self.good = good.into_iter().map(|object| (object.reference(), object)).collect();
        for reference in refused.iter().map(Located::reference) {
            if let Some(old) = before.get(&reference) {
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
                    is_conflict: false,
                };
                (Vec::new(), vec![problem], false)
            }
        };
        Self { content: Some(content), located, problems, whole, observed: None }
    }

    /// One object of a cluster.
    pub(super) fn of_object(place: &str, object: &serde_json::Value, observed: Option<Observed>) -> Self {
        let (located, problems, whole) = mesh_k8s::parse_object(place, object);
        Self { content: None, located, problems, whole, observed: observed.map(Arc::new) }
    }
}

fn applies(compiled: &Compiled, object: &Located) -> bool {
    object.standing != Standing::StandIn && !is_refused(compiled, object)
}

fn is_refused(compiled: &Compiled, object: &Located) -> bool {
    compiled.refused.contains(&(object.reference(), object.place.clone()))
}

#[cfg(test)]
mod tests;
