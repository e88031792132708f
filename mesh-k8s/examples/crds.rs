//! Writes the chart's CustomResourceDefinitions: `cargo run -p mesh-k8s --example crds`.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/mesh/templates/crds");
    fs::create_dir_all(&folder)?;
    for crd in mesh_k8s::crd::ALL {
        fs::write(folder.join(format!("{}.yaml", crd.plural)), crd.template()?)?;
    }
    Ok(())
}
