//! Custom attributes: which there are, of which type, and what a value becomes under that type.

mod catalogue;
mod convert;

pub(super) use catalogue::{Attribute, Catalogue, Content, Creation, Slot};
pub(super) use convert::{convert_in, moment, overflows};

pub use convert::{Choice, ConversionError, ValueType, convert};
