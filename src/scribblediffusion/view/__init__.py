"""Pictures from a trace: heat maps, evolutions, figures, reports. Trace in, picture out."""
