//! Entries of an answer that this meshctl does not understand: the rest of the answer is still worth something.

use mesh_proto::convert::ConvertError;

use crate::out::units;

/// What was left out.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    /// Not told yet.
    news: Vec<String>,
    /// Told already: answers that come again and again leave out the same.
    told: Vec<String>,
}

/// Most texts that are remembered as told.
const MAX_TOLD: usize = 64;

impl LeftOut {
    /// Reads entries one by one; one that is not understood is left out and noted.
    pub(super) fn read<T, U>(
        &mut self,
        one: &str,
        many: &str,
        entries: Vec<T>,
        read: impl Fn(T) -> Result<U, ConvertError>,
    ) -> Vec<U> {
        let (all, mut failed, mut first) = (entries.len(), 0, None);
        let mut understood = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            match read(entry) {
                Ok(entry) => understood.push(entry),
                Err(error) => {
                    failed += 1;
                    first.get_or_insert_with(|| format!("number {}: {error}", index + 1));
                }
            }
        }
        if let Some(first) = first {
            let which = units::count(failed, one, many);
            self.note(format!(
                "{which} of {all} in the controller's answer cannot be understood and {} left out ({first})",
                if failed == 1 { "is" } else { "are" },
            ));
        }
        understood
    }

    /// Notes something, once.
    pub(super) fn note(&mut self, text: String) {
        if self.told.contains(&text) {
            return;
        }
        if self.told.len() >= MAX_TOLD {
            self.told.clear();
        }
        self.told.push(text.clone());
        self.news.push(text);
    }

    /// What has not been told yet.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::name::WorkloadRef;
    use mesh_proto::{common::v1 as pb, convert::Wire as _};

    use super::*;

    #[test]
    fn what_is_not_understood_is_left_out_and_told_once() {
        let good = WorkloadRef::new("shop", "cart");
        let mut left_out = LeftOut::default();
        for _ in 0..2 {
            let entries = vec![pb::WorkloadRef::default(), good.to_wire(), pb::WorkloadRef::default()];
            let read = left_out.read("workload", "workloads", entries, |m| WorkloadRef::from_wire(&m));
            assert_eq!(read, std::slice::from_ref(&good));
        }
        let told = left_out.take();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with(
                "2 workloads of 3 in the controller's answer cannot be understood and are left out (number 1: "
            ),
            "{told:?}"
        );
        assert!(left_out.take().is_empty());
    }
}
