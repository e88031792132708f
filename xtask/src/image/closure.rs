//! What a binary is linked from: the packages that cargo chooses for it, with their features.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

/// Name and version, which together occur once in what is built from a registry and a workspace.
pub(super) type Id = String;

/// A package that is linked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) features: Vec<String>,
    /// An SPDX expression.
    pub(super) licence: String,
    pub(super) repository: String,
    /// Of this workspace.
    pub(super) ours: bool,
}

/// All packages that are linked into any of the binaries, and which uses which.
#[derive(Debug, Default)]
pub(super) struct Packages {
    packages: BTreeMap<Id, Package>,
    uses: BTreeMap<Id, BTreeSet<Id>>,
}

impl Packages {
    /// Asks cargo. `cargo metadata` would tell features that the whole workspace has together; `cargo tree` tells those of
    /// a build of these packages.
    pub(super) fn read(target: &str, names: &[&str]) -> Result<Self> {
        let mut tree = workspace::cargo(["tree", "--locked", "-e", "normal", "--target", target]);
        tree.args(["--charset", "ascii", "--prefix", "depth", "--format", "\t{p}\t{f}\t{l}\t{r}"]);
        tree.args(names.iter().flat_map(|name| ["-p", name]));
        Self::parse(&workspace::output(&mut tree)?)
    }

    /// Reads lines of depth, package, features, licence and repository. What is below a package is told once; later it
    /// has `(*)`.
    fn parse(text: &str) -> Result<Self> {
        let mut found = Self::default();
        let mut above: Vec<Id> = Vec::new();
        let (mut told, mut told_before) = (BTreeSet::new(), BTreeSet::new());
        // Procedural macros, and what is below them, run in the compiler and are in no binary.
        let mut macros = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (depth, package, again) =
                parse_line(line).with_context(|| format!("cargo tree: `{line}`"))?;
            if macros.is_some_and(|start| depth > start) {
                continue;
            }
            macros = line.contains(" (proc-macro)").then_some(depth);
            if macros.is_some() {
                continue;
            }
            let id = package.id();
            ensure!(depth <= above.len(), "cargo tree leaves out what is above {id}");
            above.truncate(depth);
            if let Some(user) = above.last() {
                found.uses.entry(user.clone()).or_default().insert(id.clone());
            }
            if again { &mut told_before } else { &mut told }.insert(id.clone());
            found.packages.entry(id.clone()).or_insert(package);
            above.push(id);
        }
        if let Some(lost) = told_before.difference(&told).next() {
            bail!("cargo tree does not tell what {lost} uses");
        }
        Ok(found)
    }

    /// The packages that the one of this name is linked from, itself included, each with what it uses.
    pub(super) fn below(&self, name: &str) -> Result<BTreeMap<&Id, (&Package, BTreeSet<&Id>)>> {
        let root = self.packages.iter().find(|(_, package)| package.name == name && package.ours);
        let (root, _) = root.with_context(|| format!("cargo tree does not tell of {name}"))?;
        let mut open = vec![root];
        let mut found = BTreeMap::new();
        while let Some(id) = open.pop() {
            let Some(package) = self.packages.get(id) else { continue };
            let uses: BTreeSet<&Id> = self.uses.get(id).into_iter().flatten().collect();
            open.extend(uses.iter().copied().filter(|id| !found.contains_key(id)));
            found.insert(id, (package, uses));
        }
        Ok(found)
    }
}

impl Package {
    /// Name and version.
    pub(super) fn id(&self) -> Id {
        format!("{}@{}", self.name, self.version)
    }
}

/// Depth, package, and whether what is below it was told before.
fn parse_line(line: &str) -> Result<(usize, Package, bool)> {
    let again = line.ends_with(" (*)");
    let fields: Vec<&str> = line.trim_end_matches(" (*)").split('\t').collect();
    let &[depth, package, features, licence, repository] = &fields[..] else {
        bail!("expected five fields");
    };
    let mut words = package.split(' ');
    let name = words.next().unwrap_or_default();
    let version = words.next().and_then(|word| word.strip_prefix('v')).context("it has no version")?;
    let package = Package {
        name: name.to_owned(),
        version: version.to_owned(),
        features: features.split(',').filter(|feature| !feature.is_empty()).map(str::to_owned).collect(),
        // As crates wrote it before there was a standard.
        licence: licence.replace('/', " OR "),
        repository: repository.to_owned(),
        ours: words.any(|word| word.starts_with("(/")),
    };
    Ok((depth.parse().context("it begins with no depth")?, package, again))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0\tproxy v0.1.0 (/w/proxy)\tdefault,fast\tApache-2.0\t
1\tbytes v1.2.3\tstd\tMIT\thttps://example.org/bytes
1\tderive v1.0.0 (proc-macro)\t\tMIT/Apache-2.0\t
2\tsyn v2.0.0\tfull\tMIT\t
1\ttokio v1.0.0\trt\tMIT/Apache-2.0\t
2\tbytes v1.2.3\tstd\tMIT\thttps://example.org/bytes

0\tshop v0.1.0 (/w/shop)\t\tApache-2.0\t
1\ttokio v1.0.0\trt\tMIT/Apache-2.0\t (*)
";

    fn names(packages: &Packages, root: &str) -> Vec<String> {
        packages.below(root).expect("a root").into_keys().cloned().collect()
    }

    #[test]
    fn what_is_linked_is_found_for_each_binary() {
        let packages = Packages::parse(TREE).expect("a tree");
        assert_eq!(names(&packages, "proxy"), ["bytes@1.2.3", "proxy@0.1.0", "tokio@1.0.0"]);
        assert_eq!(names(&packages, "shop"), ["bytes@1.2.3", "shop@0.1.0", "tokio@1.0.0"]);
        let below = packages.below("shop").expect("a root");
        let (tokio, uses) = &below[&"tokio@1.0.0".to_owned()];
        assert_eq!(
            (&tokio.features[..], tokio.licence.as_str()),
            (&["rt".to_owned()][..], "MIT OR Apache-2.0")
        );
        assert_eq!(uses.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["bytes@1.2.3"]);
        assert!(!tokio.ours && below[&"shop@0.1.0".to_owned()].0.ours);
        assert!(packages.below("tokio").is_err(), "not one of ours");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = format!("{:#}", Packages::parse(text).expect_err("refused"));
            assert!(error.contains(expected), "{error}");
        };
        check("proxy v0.1.0", "five fields");
        check("0\tproxy\t\tMIT\t", "no version");
        check("x\tproxy v1.0.0\t\tMIT\t", "no depth");
        check("1\tproxy v1.0.0\t\tMIT\t", "what is above proxy@1.0.0");
        check("0\tproxy v1.0.0 (/w)\t\tMIT\t\n1\ttokio v1.0.0\t\tMIT\t (*)", "what tokio@1.0.0 uses");
    }

    #[test]
    fn the_proxy_is_linked_from_what_it_says() {
        let target = super::super::binaries::target().expect("a target");
        let packages = Packages::read(target, &["mesh-proxy", "mesh-controller"]).expect("a tree");
        let below = packages.below("mesh-proxy").expect("the proxy");
        let has = |name: &str| below.values().any(|(package, _)| package.name == name);
        assert!(has("mesh-core") && has("rustls") && has("aws-lc-sys") && has("libmimalloc-sys"));
        assert!(!has("mesh-k8s") && !has("syn") && !has("proptest") && !has("cmake"));
        assert!(below.values().all(|(package, _)| !package.licence.is_empty()));
    }
}
