def render(state): return ""
