"""Files of long text to plain text, one file a format. A reader gives text; where it is kept, texts.py says."""
