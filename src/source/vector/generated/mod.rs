//! Vector's messages and service, as `schema/proto` defines them.

pub mod event {
    include!("event.rs");
}

pub mod vector {
    include!("vector.rs");
}
