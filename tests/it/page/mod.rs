//! The status page and the HTTP API of a running pipeline, against the built program: asked as a
//! program asks, and looked at with a real browser.

mod api;
mod browser;
mod cost;
mod dead_letters;
mod keyboard;
mod live;
mod playground;
mod progress;
mod readable;
mod scene;
mod screenshots;
mod service;
