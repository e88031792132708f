//! Rules for sizes: short files, short functions.

use proc_macro2::Span;
use syn::visit::{self, Visit};

use super::Finding;
use super::source::SourceFile;

/// Lines of a file, its test module aside.
const FILE_LINES: usize = 400;
/// Lines of a function's body, blank lines and comments aside; clippy counts the same way.
const FUNCTION_LINES: usize = 80;

/// Findings in one Rust file.
pub(crate) fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = file.lines_before_tests();
    if lines > FILE_LINES {
        let problem = format!("{lines} lines, more than {FILE_LINES}");
        findings.push(Finding::at(&file.path, lines, problem, "split the file by purpose"));
    }
    let parsed = match syn::parse_file(&file.text) {
        Ok(parsed) => parsed,
        Err(error) => {
            let line = error.span().start().line;
            findings.push(Finding::at(&file.path, line, format!("not Rust: {error}"), "let it compile"));
            return findings;
        }
    };
    if !file.is_test() {
        let mut functions = Functions { file, lines: file.text.lines().collect(), findings };
        functions.visit_file(&parsed);
        findings = functions.findings;
    }
    findings
}

/// Walks over the functions of a file, tests aside.
struct Functions<'a> {
    file: &'a SourceFile,
    lines: Vec<&'a str>,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, open: Span, close: Span) {
        let (first, end) = (open.start().line, close.start().line);
        let body = self.lines.get(first..end.saturating_sub(1)).unwrap_or_default();
        let code =
            body.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with("//"));
        let lines = code.count();
        if lines > FUNCTION_LINES {
            let problem = format!("fn {name} has {lines} lines, more than {FUNCTION_LINES}");
            self.findings.push(Finding::at(
                &self.file.path,
                first,
                problem,
                "name its parts and split them off",
            ));
        }
    }

    fn measure_block(&mut self, name: &syn::Ident, block: &syn::Block) {
        self.measure(name, block.brace_token.span.open(), block.brace_token.span.close());
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module.attrs.iter().any(is_cfg_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !function.attrs.iter().any(is_test) {
            self.measure_block(&function.sig.ident, &function.block);
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure_block(&function.sig.ident, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure_block(&function.sig.ident, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
}

/// `#[test]`, `#[tokio::test]` and the like.
fn is_test(attribute: &syn::Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        check(&SourceFile::sample(path, text)).iter().map(ToString::to_string).collect()
    }

    fn function(head: &str, lines: usize) -> String {
        format!("//! X.\n{head} {{\n{}}}\n", "    work();\n".repeat(lines))
    }

    #[test]
    fn measures_functions() {
        assert_eq!(problems("a/src/b.rs", &function("fn f()", FUNCTION_LINES)), [""; 0]);
        let found = problems("a/src/b.rs", &function("fn f()", FUNCTION_LINES + 1));
        assert!(found.len() == 1 && found[0].starts_with("a/src/b.rs:2: fn f has 81 lines"), "{found:?}");
        let method = "struct S;\nimpl S {\nfn f()";
        let found = problems("b.rs", &format!("{}}}\n", function(method, FUNCTION_LINES + 1)));
        assert!(found.len() == 1 && found[0].contains("b.rs:4: fn f has 81 lines"), "{found:?}");
    }

    #[test]
    fn comments_and_tests_are_free() {
        let comments = "    // why\n\n".repeat(FUNCTION_LINES);
        assert_eq!(problems("b.rs", &format!("//! X.\nfn f() {{\n{comments}}}\n")), [""; 0]);
        assert_eq!(problems("b.rs", &function("#[test]\nfn f()", 200)), [""; 0]);
        let module = format!("{}}}\n", function("#[cfg(test)]\nmod tests {\nfn f()", 900));
        assert_eq!(problems("b.rs", &module), [""; 0]);
        assert_eq!(problems("a/tests/b.rs", &function("fn f()", 200)), [""; 0]);
    }

    #[test]
    fn measures_files() {
        let long = format!("//! X.\n{}", "const A: u8 = 1;\n".repeat(FILE_LINES));
        let found = problems("b.rs", &long);
        assert!(found.len() == 1 && found[0].starts_with("b.rs:401: 401 lines"), "{found:?}");
        assert!(problems("b.rs", "//! X.\nfn {\n")[0].starts_with("b.rs:2: not Rust"));
    }
}
