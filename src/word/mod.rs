//! Records to words, pure.
