//! Pages under docs with a part that a command writes.

use std::path::Path;

use anyhow::{Context as _, Result};

const END: &str = "<!-- end of results -->";

/// Replaces, in a page, what `cargo xtask COMMAND --save` wrote there before.
pub(crate) fn save(file: &Path, command: &str, text: &str) -> Result<()> {
    let page = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let page = replace(&page, command, text).with_context(|| format!("in {}", file.display()))?;
    std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    println!("written to {}", file.display());
    Ok(())
}

/// The page with what stands between the command's marks replaced.
fn replace(page: &str, command: &str, text: &str) -> Result<String> {
    let begin = format!("<!-- results: written by `cargo xtask {command} --save` -->\n");
    let (before, rest) = page.split_once(&begin).context("the page does not say where the results begin")?;
    let (_, after) = rest.split_once(END).context("the page does not say where the results end")?;
    Ok(format!("{before}{begin}{text}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_part_is_replaced() {
        let part = |command: &str, text: &str| {
            format!("<!-- results: written by `cargo xtask {command} --save` -->\n{text}\n{END}\n")
        };
        let page =
            |text: &str| format!("before\n{}between\n{}after\n", part("one", "old"), part("two", text));
        assert_eq!(replace(&page("old"), "two", "new\n").expect("it has marks"), page("new"));
        assert!(replace(&page("old"), "three", "new").is_err());
        assert!(replace("no marks", "one", "new").is_err());
    }
}
