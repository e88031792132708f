//! Rules for lines of text: no notes to oneself, no blanks at the end, no paths of one's own machine.

use super::Finding;
use super::source::SourceFile;

/// Words that say that something is not done. Written in two halves, for this file is checked too.
const UNDONE: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Folders that only exist on somebody's machine.
const MACHINES: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
const IGNORED_TEST: &str = concat!("#[igno", "re");

/// Findings in one file.
pub(crate) fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.path == "Cargo.lock" {
        return findings;
    }
    if file.is_rust() && !file.text.starts_with("//!") {
        findings.push(Finding::at(
            &file.path,
            1,
            "the file does not say what it is for",
            "begin it with //!",
        ));
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let last = file.text.lines().count();
        findings.push(Finding::at(
            &file.path,
            last,
            "the last line has no end",
            "end the file with a newline",
        ));
    }
    for (number, line) in file.lines() {
        findings.extend(
            check_line(file, line).map(|(what, remedy)| Finding::at(&file.path, number, what, remedy)),
        );
    }
    findings
}

/// What is wrong with one line, and the remedy.
fn check_line<'a>(
    file: &'a SourceFile,
    line: &'a str,
) -> impl Iterator<Item = (String, &'static str)> + use<'a> {
    let prose = file.path.ends_with(".md");
    let blanks =
        line.ends_with([' ', '\t', '\r']).then(|| ("blanks at the end of the line".to_owned(), "cut them"));
    let undone = UNDONE.iter().find(|word| !prose && has_word(line, word));
    let undone = undone.map(|word| (format!("`{word}` marks unfinished work"), "finish it or open an issue"));
    let machine = MACHINES.iter().find(|folder| has_path(line, folder));
    let machine =
        machine.map(|folder| (format!("a path under {folder}"), "name no folder of your own machine"));
    let ignored = (file.is_rust() && line.contains(IGNORED_TEST))
        .then(|| ("a test that nobody runs".to_owned(), "let it run, or say at run time why it cannot"));
    [blanks, undone, machine, ignored].into_iter().flatten()
}

/// True if `word` stands in `line` on its own.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(part_of_word) && !after.starts_with(part_of_word)
    })
}

/// True if an absolute path below `folder` stands in `line`. A name of one letter is an example, nobody's folder.
fn has_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + folder.len()..]);
        let starts_here = !before.ends_with(|c: char| c.is_alphanumeric() || "._-/}".contains(c));
        let of_name = |c: &char| c.is_alphanumeric() || "._-".contains(*c);
        starts_here && after.chars().take_while(of_name).count() > 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        check(&SourceFile::sample(path, text)).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check_one(path: &str, text: &str, expected: &str) {
        let found = problems(path, text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }

    #[test]
    fn a_clean_file_passes() {
        assert_eq!(problems("a/src/b.rs", "//! What it is for.\nfn f() {}\n"), [""; 0]);
        assert_eq!(problems("README.md", "See https://example.org/home/page and ca/root/x.\n"), [""; 0]);
    }

    #[test]
    fn finds_what_lines_must_not_have() {
        check_one("b.rs", "fn f() {}\n", "b.rs:1: the file does not say");
        check_one("b.rs", "//! Text.\nfn f() {}", "b.rs:2: the last line has no end");
        check_one("b.rs", "//! Text. \n", "b.rs:1: blanks");
        check_one("b.toml", concat!("a = 1\n# TO", "DO: more\n"), "b.toml:2: `TO");
        check_one("b.rs", concat!("//! X.\n#[igno", "re = \"slow\"]\n"), "b.rs:2: a test that nobody runs");
        assert_eq!(problems("b.md", concat!("Say /ho", "me/a/mesh.\n")), [""; 0]);
        check_one("b.md", concat!("Look in /ho", "me/anna/mesh.\n"), "b.md:1: a path under");
    }

    #[test]
    fn a_word_in_a_word_is_no_note() {
        assert_eq!(problems("b.rs", "//! X.\nconst TODOS: u8 = 1;\n"), [""; 0]);
    }
}
