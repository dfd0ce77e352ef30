//! Who is at fault where one worker could not read from another.
//!
//! The one that was to be read, as far as anybody knows at first. Of a worker that fails with a second one too, that no other worker
//! has named, it is itself: its own way out may be blocked, and what it said of others is taken back.

use std::collections::BTreeSet;

/// What one worker after the other has said.
#[derive(Debug, Default)]
pub(super) struct Blame {
    /// Who could not read, and from whom.
    said: BTreeSet<(String, String)>,
}

/// What follows.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Verdict {
    /// The worker that gets no more tasks.
    pub(super) barred: String,
    /// Workers that do again.
    pub(super) cleared: Vec<String>,
}

impl Blame {
    /// `reader` could not read from `source`; what was said by or of workers that are gone is forgotten.
    pub(super) fn add(
        &mut self,
        reader: &str,
        source: &str,
        is_there: impl Fn(&str) -> bool,
    ) -> Verdict {
        self.said
            .retain(|(who, whom)| is_there(who) && is_there(whom));
        self.said.insert((reader.to_owned(), source.to_owned()));
        let of_reader = self.said.iter().filter(|(who, _)| who == reader);
        let only = of_reader.filter(|(_, whom)| self.accusers(whom) == 1);
        let only: Vec<_> = only.map(|(_, whom)| whom.clone()).collect();
        if self.accusers(source) > 1 || only.len() < 2 {
            return Verdict {
                barred: source.to_owned(),
                cleared: Vec::new(),
            };
        }
        self.said.retain(|(who, _)| who != reader);
        Verdict {
            barred: reader.to_owned(),
            cleared: only,
        }
    }

    fn accusers(&self, source: &str) -> usize {
        self.said.iter().filter(|(_, whom)| whom == source).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barred(blame: &mut Blame, reader: &str, source: &str) -> (String, Vec<String>) {
        let Verdict { barred, cleared } = blame.add(reader, source, |id| id != "gone");
        (barred, cleared)
    }

    #[test]
    fn whoever_reads_from_nobody_is_barred_and_those_it_named_are_not() {
        let mut blame = Blame::default();
        assert_eq!(barred(&mut blame, "a", "b"), ("b".into(), vec![]));
        assert_eq!(barred(&mut blame, "a", "b"), ("b".into(), vec![]));
        let cleared = vec!["b".into(), "c".into()];
        assert_eq!(barred(&mut blame, "a", "c"), ("a".into(), cleared));
        // What it said counts no more.
        assert_eq!(barred(&mut blame, "b", "c"), ("c".into(), vec![]));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut blame = Blame::default();
        assert_eq!(barred(&mut blame, "a", "gone"), ("gone".into(), vec![]));
        assert_eq!(barred(&mut blame, "a", "b"), ("b".into(), vec![]));
    }

    #[test]
    fn whom_two_cannot_read_is_barred() {
        let mut blame = Blame::default();
        assert_eq!(barred(&mut blame, "a", "c"), ("c".into(), vec![]));
        assert_eq!(barred(&mut blame, "b", "c"), ("c".into(), vec![]));
        assert_eq!(barred(&mut blame, "a", "d"), ("d".into(), vec![]));
    }
}
