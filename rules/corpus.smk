# Text: documents as token ids.


rule tokenise:
    input:
        model=model_files,
    output:
        ids="results/text/{model}/{text}/ids.safetensors",
        documents="results/text/{model}/{text}/documents.json",
        provenance="results/text/{model}/{text}/provenance.json",
    log:
        "results/logs/tokenise/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=lambda wildcards: {
            "text": SETTINGS.texts[wildcards.text].model_dump(),
            "model": model_settings(wildcards),
            "sources": text_sources(wildcards),
            "tokens": document_tokens(wildcards.text),
        },
        code=code("tokenise.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/tokenise.py"
