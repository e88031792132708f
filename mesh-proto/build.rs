//! Compiles the protobuf files with a pure-Rust compiler, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PACKAGES: [&str; 5] = ["common", "identity", "discovery", "telemetry", "view"];
    println!("cargo:rerun-if-changed=proto");
    let files: Vec<String> = PACKAGES.iter().map(|p| format!("mesh/{p}/v1/{p}.proto")).collect();
    let descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
