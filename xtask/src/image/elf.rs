//! Whether a binary needs nothing beside itself: an image from scratch has no loader and no libraries.

use anyhow::{Context as _, Result, bail, ensure};
use elf::ElfBytes;
use elf::abi::{DT_NEEDED, EM_AARCH64, EM_X86_64, PT_INTERP};
use elf::endian::AnyEndian;

/// What images call the architecture that the binary is for.
///
/// # Errors
/// When it is not for Linux on a machine that we know, or not static.
pub(super) fn architecture_of_static(binary: &[u8]) -> Result<&'static str> {
    let elf = ElfBytes::<AnyEndian>::minimal_parse(binary).context("not an ELF file")?;
    let segments = elf.segments().context("it has no program headers")?;
    ensure!(
        segments.iter().all(|segment| segment.p_type != PT_INTERP),
        "not static: it asks for a dynamic loader"
    );
    if let Some(entries) = elf.dynamic().context("its dynamic section cannot be read")? {
        let libraries = entries.iter().filter(|entry| entry.d_tag == DT_NEEDED).count();
        ensure!(libraries == 0, "not static: it asks for {libraries} shared libraries");
    }
    Ok(match elf.ehdr.e_machine {
        EM_X86_64 => "amd64",
        EM_AARCH64 => "arm64",
        other => bail!("for a machine without a name in images (ELF number {other})"),
    })
}

#[cfg(test)]
mod tests;
