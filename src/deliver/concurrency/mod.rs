//! How many attempts may be on the wire at once.
//!
//! The [controller] decides the number, the [semaphore] holds to it; neither knows the other.

pub mod controller;
pub mod semaphore;

pub use controller::{Controller, ControllerSettings, LoadSignal};
pub use semaphore::{Permit, ResizableSemaphore};
