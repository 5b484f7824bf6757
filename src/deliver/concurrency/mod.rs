//! How many attempts may be in flight at once.
//!
//! The [controller] decides the number, the [semaphore] enforces it; neither knows the other.

pub mod controller;
pub mod semaphore;

pub use controller::{Controller, ControllerSettings, LoadSignal};
pub use semaphore::{Permit, ResizableSemaphore};
