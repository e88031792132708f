//! `cargo xtask image`: container images from scratch, each of one static binary, with no container engine. The same
//! sources give the same bytes. docs/images.md says what they are.

pub(crate) mod archive;
mod binaries;
mod closure;
mod elf;
mod manifest;
mod names;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser as _, builder::PossibleValuesParser};

use self::binaries::Binary;
use self::closure::Packages;
use self::manifest::{Image, Labels};
use crate::stages::Stages;
use crate::workspace;

/// The profile of what is shipped.
const SHIPPED: &str = "dist";
/// That of tests: as fast to run, and faster to build.
const TESTED: &str = "release";
/// Largest image of the proxy, which every pod pulls.
const PROXY_LIMIT: usize = 15_000_000;

/// What an image is made of.
struct Recipe {
    /// Of the image.
    name: &'static str,
    package: &'static str,
    binary: &'static str,
    /// Who the binary runs as, unless the pod says otherwise.
    user: u32,
    /// Most bytes, of what is shipped.
    limit: Option<usize>,
    description: &'static str,
}

/// The proxy has a user of its own, by which `mesh-proxy init --proxy-uid 1337` knows it.
const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "mesh-proxy",
        package: "mesh-proxy",
        binary: "mesh-proxy",
        user: 1337,
        limit: Some(PROXY_LIMIT),
        description: "The sidecar of the mesh, and what sets its firewall rules up",
    },
    Recipe {
        name: "mesh-controller",
        package: "mesh-controller",
        binary: "mesh-controller",
        user: 65532,
        limit: None,
        description: "The mesh's control plane",
    },
    Recipe {
        name: "meshctl",
        package: "mesh-cli",
        binary: "meshctl",
        user: 65532,
        limit: None,
        description: "The mesh's tool for people",
    },
    Recipe {
        name: "shop",
        package: "shop",
        binary: "shop",
        user: 65532,
        limit: None,
        description: "Services of the example shop",
    },
];

/// Arguments of `cargo xtask image`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Cargo's profile; the default is what is shipped.
    #[arg(long, default_value = SHIPPED)]
    profile: String,
    /// Make this image only; can be repeated.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(RECIPES.map(|recipe| recipe.name)))]
    only: Vec<String>,
    /// The images' tag.
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"), value_parser = names::tag)]
    version: String,
    /// What stands before the images' names, for example ghcr.io/somebody.
    #[arg(long, default_value = "meshctl.dev", value_parser = names::repository)]
    repository: String,
    /// Where the sources are: label org.opencontainers.image.source.
    #[arg(long, value_name = "URL", default_value = "https://meshctl.dev")]
    source: String,
}

/// Builds binaries and writes images and lists of what is in them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted: Vec<&Recipe> = RECIPES
        .iter()
        .filter(|recipe| args.only.is_empty() || args.only.iter().any(|name| name == recipe.name))
        .collect();
    let mut stages = Stages::default();
    let result = make(args, &wanted, &mut stages);
    stages.print();
    println!("{}", result?);
    Ok(())
}

/// Makes these images, or all if none is named, for tests; their archives.
pub(crate) fn archives(only: &[&str]) -> Result<Vec<PathBuf>> {
    let words = ["image", "--profile", TESTED].into_iter();
    let words = words.chain(only.iter().flat_map(|name| ["--only", name]));
    run(&Only::try_parse_from(words).context("arguments of our own")?.args)?;
    made(only)
}

/// The archives of images that were made before.
pub(crate) fn made(only: &[&str]) -> Result<Vec<PathBuf>> {
    let folder = workspace::target_directory()?.join("images");
    let wanted = RECIPES.iter().filter(|recipe| only.is_empty() || only.contains(&recipe.name));
    Ok(wanted.map(|recipe| folder.join(format!("{}.oci.tar", recipe.name))).collect())
}

/// The arguments alone.
#[derive(clap::Parser)]
struct Only {
    #[command(flatten)]
    args: Args,
}

/// Makes the images, and returns a table of them.
fn make(args: &Args, wanted: &[&Recipe], stages: &mut Stages) -> Result<String> {
    let target = binaries::target()?;
    let all = RECIPES.map(|recipe| recipe.package);
    // Before the build: it downloads sources, whose folders the build must know.
    let packages = stages.run("dependencies", || Packages::read(target, &all))?;
    let built = stages.run("binaries", || binaries::build(target, &args.profile, &all, wanted))?;
    let folder = workspace::target_directory()?.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let base = Base { revision: revision(), linked: sbom::linked()? };
    stages.run("images", || {
        let mut table = format!("\n{:<18}{:>12}{:>12}  digest in registries\n", "image", "bytes", "pulled");
        for (recipe, binary) in wanted.iter().zip(&built) {
            let image = one(args, recipe, binary, &packages, &base, &folder)?;
            let (name, unpacked, pulled) = (recipe.name, image.unpacked(), image.pulled());
            table += &format!("{name:<18}{unpacked:>12}{pulled:>12}  {}\n", image.digest());
        }
        Ok(table + &format!("{}/NAME:{} in {}", args.repository, args.version, folder.display()))
    })
}

/// What is the same for all images of one run.
struct Base {
    revision: Option<String>,
    linked: Vec<sbom::Linked>,
}

/// Writes one image, in both formats, and its list of contents.
fn one(
    args: &Args,
    recipe: &Recipe,
    binary: &Binary,
    packages: &Packages,
    base: &Base,
    folder: &Path,
) -> Result<Image> {
    let Args { version, repository, source, .. } = args;
    let labels = Labels { version, source, revision: base.revision.as_deref() };
    let reference = format!("{repository}/{}:{version}", recipe.name);
    let image = Image::new(recipe, binary, &labels, reference)?;
    if let Some(limit) = recipe.limit.filter(|_| args.profile == SHIPPED) {
        ensure!(
            image.unpacked() <= limit,
            "the image of {} has {} bytes, and may have {limit}: see with `cargo bloat --profile {} -p {}` what grew",
            recipe.name,
            image.unpacked(),
            args.profile,
            recipe.package
        );
    }
    let list = sbom::cyclonedx(recipe, binary, packages, &base.linked)?;
    for (kind, bytes) in [
        ("oci.tar", image.oci_archive()?),
        ("docker.tar", image.docker_archive()?),
        ("cdx.json", archive::pretty(&list)?),
    ] {
        archive::replace(&folder.join(format!("{}.{kind}", recipe.name)), &bytes)?;
    }
    Ok(image)
}

/// The commit that is built, if git knows; it says so if files differ from it.
fn revision() -> Option<String> {
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        workspace::output(command.args(args).current_dir(workspace::root())).ok()
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let clean = git(&["status", "--porcelain"])?.is_empty();
    Some(format!("{}{}", commit.trim(), if clean { "" } else { "-modified" }))
}
