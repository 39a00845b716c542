"""The web pages, made with Gradio. What they do lies below; they show it."""
