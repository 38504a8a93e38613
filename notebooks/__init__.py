"""The tutorials as notebooks, in English and Chinese, made from the modules and their prose."""
