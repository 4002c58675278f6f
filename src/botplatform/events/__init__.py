"""The compiled event definitions; `botplatform.core.events` is the module to import."""
