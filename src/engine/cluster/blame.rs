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
    /// `reader` could not read from `source`.
    pub(super) fn add(&mut self, reader: &str, source: &str) -> Verdict {
        self.said.insert((reader.to_owned(), source.to_owned()));
        let of_reader = self.said.iter().filter(|(who, _)| who == reader);
        let only = of_reader.filter(|(_, whom)| self.accusers(whom) == 1);
        let only: Vec<_> = only.map(|(_, whom)| whom.clone()).collect();
        match self.accusers(source) == 1 && only.len() > 1 {
            true => Verdict {
                barred: reader.to_owned(),
                cleared: only,
            },
            false => Verdict {
                barred: source.to_owned(),
                cleared: Vec::new(),
            },
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
        let Verdict { barred, cleared } = blame.add(reader, source);
        (barred, cleared)
    }

    #[test]
    fn whoever_reads_from_nobody_is_barred_and_those_it_named_are_not() {
        let mut blame = Blame::default();
        assert_eq!(barred(&mut blame, "a", "b"), ("b".into(), vec![]));
        assert_eq!(barred(&mut blame, "a", "b"), ("b".into(), vec![]));
        let cleared = vec!["b".into(), "c".into()];
        assert_eq!(barred(&mut blame, "a", "c"), ("a".into(), cleared));
    }

    #[test]
    fn whom_two_cannot_read_is_barred() {
        let mut blame = Blame::default();
        assert_eq!(barred(&mut blame, "a", "c"), ("c".into(), vec![]));
        assert_eq!(barred(&mut blame, "b", "c"), ("c".into(), vec![]));
        assert_eq!(barred(&mut blame, "a", "d"), ("d".into(), vec![]));
    }
}
