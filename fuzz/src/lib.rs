//! What is fuzzed: parsers of outside input, each held against a property, with inputs to begin with.
//!
//! `cargo xtask fuzz` runs them under libFuzzer. The tests run the same properties over the seeds, so that a normal
//! test run checks them without a fuzzer. The proxy's own are in `mesh_proxy::fuzz`, which a normal build does not have.

mod domain;
mod wire;
mod yaml;

/// Name, property, and inputs to begin with. The property panics where it does not hold.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Targets of the crates whose parsers are public.
pub const TARGETS: &[Target] = &[
    ("names", domain::names, domain::name_seeds),
    ("paths", domain::paths, domain::path_seeds),
    ("matching", domain::matching, domain::matching_seeds),
    ("timeouts", domain::timeouts, domain::timeout_seeds),
    ("resources", wire::resources, wire::resource_seeds),
    ("edges", wire::edges, wire::edge_seeds),
    ("yaml", yaml::objects, yaml::seeds),
];

/// All targets.
#[must_use]
pub fn targets() -> Vec<Target> {
    #[cfg_attr(not(fuzzing), expect(unused_mut, reason = "only a fuzzed build has the proxy's"))]
    let mut all = TARGETS.to_vec();
    #[cfg(fuzzing)]
    all.extend(mesh_proxy::fuzz::TARGETS);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds, and what is near them: cut short, one byte changed.
    #[test]
    fn properties_hold_near_the_seeds() {
        for (name, check, seeds) in targets() {
            let seeds = seeds();
            assert!(!seeds.is_empty(), "{name} has no seeds");
            check(&[]);
            for seed in seeds {
                check(&seed);
                let step = (seed.len() / 12).max(1);
                for at in (0..seed.len()).step_by(step) {
                    check(&seed[..at]);
                    let mut changed = seed.clone();
                    for byte in [b'/', b'%', b'.', b':', 0, 0xff, changed[at] ^ 1] {
                        changed[at] = byte;
                        check(&changed);
                    }
                }
            }
        }
    }
}
