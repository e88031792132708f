//! An image: one layer with one file, its configuration, and both formats of archive (OCI image layout 1.0, and what
//! `docker save` writes).

use anyhow::Result;
use serde_json::{Value, json};

use super::Recipe;
use super::archive::{self, Entry, sha256};
use super::binaries::Binary;

/// What is said about an image in its labels.
pub(super) struct Labels<'a> {
    pub(super) version: &'a str,
    pub(super) source: &'a str,
    pub(super) revision: Option<&'a str>,
}

/// Bytes by the sum of which they are known.
struct Blob {
    kind: &'static str,
    sum: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(kind: &'static str, bytes: Vec<u8>) -> Self {
        Self { kind, sum: sha256(&bytes), bytes }
    }

    fn json(kind: &'static str, value: &Value) -> Self {
        Self::new(kind, value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.sum)
    }

    /// An OCI content descriptor.
    fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": self.digest(), "size": self.bytes.len()})
    }
}

/// An image that is ready to be written.
pub(super) struct Image {
    /// Its full name, with tag.
    pub(super) reference: String,
    tag: String,
    /// The layer as it is unpacked, and as it is pulled.
    contents: Blob,
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

impl Image {
    /// Puts a binary into an image.
    pub(super) fn new(
        recipe: &Recipe,
        binary: &Binary,
        labels: &Labels<'_>,
        reference: String,
    ) -> Result<Self> {
        let file = Entry { path: recipe.binary, mode: 0o755, bytes: &binary.bytes };
        let contents = Blob::new("application/vnd.oci.image.layer.v1.tar", archive::tar(&[file])?);
        let packed = archive::gzip(&contents.bytes)?;
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", packed);
        let config = config(recipe, binary.architecture, labels, &contents.digest());
        let config = Blob::json("application/vnd.oci.image.config.v1+json", &config);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "annotations": labels.of(recipe),
        });
        let manifest = Blob::json(kind, &manifest);
        Ok(Self { reference, tag: labels.version.to_owned(), contents, layer, config, manifest })
    }

    /// By which registries know it.
    pub(super) fn digest(&self) -> String {
        self.manifest.digest()
    }

    /// Bytes on the disk of who runs it.
    pub(super) fn unpacked(&self) -> usize {
        self.contents.bytes.len()
    }

    /// Bytes of what is pulled.
    pub(super) fn pulled(&self) -> usize {
        [&self.layer, &self.config, &self.manifest].iter().map(|blob| blob.bytes.len()).sum()
    }

    /// An OCI image layout.
    pub(super) fn oci_archive(&self) -> Result<Vec<u8>> {
        let mut entry = self.manifest.descriptor();
        // The first is containerd's, which wants the whole name; the second is what the specification calls the tag.
        entry["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": self.tag,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let (index, layout) = (index.to_string(), json!({"imageLayoutVersion": "1.0.0"}).to_string());
        let mut blobs = [&self.config, &self.layer, &self.manifest];
        blobs.sort_by(|one, other| one.sum.cmp(&other.sum));
        let blobs = blobs.map(|blob| (format!("blobs/sha256/{}", blob.sum), &blob.bytes[..]));
        let mut entries: Vec<Entry<'_>> =
            blobs.iter().map(|(path, bytes)| Entry { path, mode: 0o644, bytes }).collect();
        entries.push(Entry { path: "index.json", mode: 0o644, bytes: index.as_bytes() });
        entries.push(Entry { path: "oci-layout", mode: 0o644, bytes: layout.as_bytes() });
        archive::tar(&entries)
    }

    /// What `docker load` takes.
    pub(super) fn docker_archive(&self) -> Result<Vec<u8>> {
        let (config, layer) = (format!("{}.json", self.config.sum), format!("{}.tar", self.contents.sum));
        let manifest =
            json!([{"Config": config, "RepoTags": [self.reference], "Layers": [layer]}]).to_string();
        archive::tar(&[
            Entry { path: &config, mode: 0o644, bytes: &self.config.bytes },
            Entry { path: &layer, mode: 0o644, bytes: &self.contents.bytes },
            Entry { path: "manifest.json", mode: 0o644, bytes: manifest.as_bytes() },
        ])
    }
}

impl Labels<'_> {
    fn of(&self, recipe: &Recipe) -> Value {
        let mut labels = json!({
            "org.opencontainers.image.title": recipe.name,
            "org.opencontainers.image.description": recipe.description,
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.source": self.source,
            "org.opencontainers.image.licenses": "Apache-2.0",
        });
        if let Some(revision) = self.revision {
            labels["org.opencontainers.image.revision"] = revision.into();
        }
        labels
    }
}

/// The configuration: no shell, no root, and the binary is all there is.
fn config(recipe: &Recipe, architecture: &str, labels: &Labels<'_>, layer: &str) -> Value {
    // Always the same moment: that of the build is nobody's concern, and would make each build differ.
    let created = "1970-01-01T00:00:00Z";
    json!({
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {
            "User": format!("{0}:{0}", recipe.user),
            "Entrypoint": [format!("/{}", recipe.binary)],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "Labels": labels.of(recipe),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created": created, "created_by": "cargo xtask image"}],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::super::RECIPES;
    use super::*;

    fn image() -> Image {
        let binary = Binary { architecture: "arm64", bytes: b"program".to_vec() };
        let labels = Labels { version: "1.2", source: "https://example.org", revision: Some("abc") };
        Image::new(&RECIPES[0], &binary, &labels, "example.org/mesh-proxy:1.2".to_owned()).expect("an image")
    }

    /// All files of an archive, in their order.
    fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let files = archive.entries().expect("entries").map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("its bytes");
            (entry.path().expect("a path").display().to_string(), bytes)
        });
        files.collect()
    }

    fn parse(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).expect("JSON")
    }

    /// Follows a descriptor, as who pulls the image does.
    fn follow<'a>(blobs: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let sum = digest.strip_prefix("sha256:").expect("SHA-256");
        let bytes = &blobs[&format!("blobs/sha256/{sum}")];
        assert_eq!(sum, sha256(bytes));
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn the_layout_leads_to_the_program() {
        let image = image();
        let listed = files(&image.oci_archive().expect("an archive"));
        let mut sorted: Vec<&str> = listed.iter().map(|(path, _)| path.as_str()).collect();
        sorted.sort_unstable();
        assert!(listed.iter().map(|(path, _)| path).eq(sorted), "the order is that of names");
        let blobs: BTreeMap<_, _> = listed.into_iter().collect();
        assert_eq!(parse(&blobs["oci-layout"])["imageLayoutVersion"], "1.0.0");
        let index = parse(&blobs["index.json"]);
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], image.digest());
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "example.org/mesh-proxy:1.2");
        let manifest = parse(follow(&blobs, entry));
        let config = parse(follow(&blobs, &manifest["config"]));
        let mut layer = Vec::new();
        let packed = follow(&blobs, &manifest["layers"][0]);
        flate2::read::GzDecoder::new(packed).read_to_end(&mut layer).expect("gzip");
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&layer)));
        assert_eq!(files(&layer), [("mesh-proxy".to_owned(), b"program".to_vec())]);
        assert_eq!((&config["architecture"], &config["os"]), (&json!("arm64"), &json!("linux")));
        assert_eq!(config["config"]["User"], "1337:1337");
        assert_eq!(config["config"]["Entrypoint"], json!(["/mesh-proxy"]));
        let labels = &config["config"]["Labels"];
        for (name, value) in [
            ("version", "1.2"),
            ("source", "https://example.org"),
            ("revision", "abc"),
            ("licenses", "Apache-2.0"),
        ] {
            assert_eq!(labels[format!("org.opencontainers.image.{name}")], value);
        }
    }

    #[test]
    fn the_docker_archive_has_the_same_image() {
        let image = image();
        let archive: BTreeMap<_, _> =
            files(&image.docker_archive().expect("an archive")).into_iter().collect();
        let manifest = parse(&archive["manifest.json"]);
        assert_eq!(manifest[0]["RepoTags"], json!(["example.org/mesh-proxy:1.2"]));
        let file = |name: &Value| &archive[name.as_str().expect("a name")];
        assert_eq!(file(&manifest[0]["Config"]), &image.config.bytes);
        assert_eq!(file(&manifest[0]["Layers"][0]), &image.contents.bytes);
    }

    #[test]
    fn nobody_runs_as_root_and_no_two_images_have_one_name() {
        assert!(RECIPES.iter().all(|recipe| recipe.user != 0));
        let names: std::collections::BTreeSet<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
        assert_eq!(names.len(), RECIPES.len());
    }
}
