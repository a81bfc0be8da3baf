//! The crate as its users see it: one binary, so that libtorch is linked once.

#![allow(clippy::unwrap_used)]

mod it {
    mod checkpoint;
    mod distilling;
    mod evaluate;
    mod fine_tuning;
    mod hub;
    mod measure;
    mod pretrained;
    mod scorer;
    mod support;
    mod training;
}
